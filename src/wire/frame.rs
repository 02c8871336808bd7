//! Length-prefixed postcard messages: the frames of a control connection and of every handshake.
//!
//! ```
//! use ppu_uringd::wire::control::FromPpu;
//! use ppu_uringd::wire::frame::{Decoder, MAX_FRAME_BYTES, encode};
//! let bytes = encode(&FromPpu::ClockProbe { sent_ns: 7 }).unwrap();
//! let mut decoder = Decoder::new(MAX_FRAME_BYTES);
//! decoder.feed(&bytes[..3]);
//! assert_eq!(decoder.next_message::<FromPpu>(), Ok(None));
//! decoder.feed(&bytes[3..]);
//! assert_eq!(decoder.next_message(), Ok(Some(FromPpu::ClockProbe { sent_ns: 7 })));
//! ```

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::control::{FromDetector, FromPpu};

/// Longest frame body: a page of offers with long paths, and still nothing that a peer could exhaust memory with.
pub const MAX_FRAME_BYTES: usize = 65_536;
/// Longest frame body before authentication: a greeting needs about 150 bytes.
pub const MAX_UNAUTHENTICATED_FRAME_BYTES: usize = 1_024;
/// The length before each body, little-endian.
pub const LENGTH_BYTES: usize = size_of::<u32>();

/// An enum that travels as a frame. Variants are only ever appended to it; enums inside its fields are closed
/// within a protocol version.
pub trait Message: Serialize + DeserializeOwned {
    /// How many variants this release knows.
    const VARIANTS: u32;
}

impl Message for FromDetector {
    const VARIANTS: u32 = 13;
}

impl Message for FromPpu {
    const VARIANTS: u32 = 12;
}

/// Why bytes are not frames, or a message cannot be one. After an error of a [`Decoder`] its connection is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The body would exceed the limit.
    #[error("frame of {length} bytes, where at most {limit} are allowed")]
    TooLong {
        /// Of the body.
        length: usize,
        /// [`MAX_FRAME_BYTES`] or [`MAX_UNAUTHENTICATED_FRAME_BYTES`].
        limit: usize,
    },
    /// Not a message, or one with impossible contents.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// The message ends before its frame does.
    #[error("malformed message: {0} bytes too many")]
    TrailingBytes(usize),
    /// Only if a message cannot be expressed at all, which none of ours is.
    #[error("message cannot be encoded: {0}")]
    Encode(postcard::Error),
}

/// The bytes of one frame, length included.
///
/// # Errors
/// [`FrameError::TooLong`] above [`MAX_FRAME_BYTES`]: see [`pages`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = postcard::to_extend(message, vec![0; LENGTH_BYTES]).map_err(FrameError::Encode)?;
    let length = frame.len() - LENGTH_BYTES;
    if length > MAX_FRAME_BYTES {
        return Err(FrameError::TooLong { length, limit: MAX_FRAME_BYTES });
    }
    frame[..LENGTH_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// Splits `items`, in their order, so that each page fits a frame as the one list of a message, and holds at most
/// `most` of them (such as [`super::control::OFFER_PAGE_FILES`]).
///
/// ```
/// use ppu_uringd::model::file_version::OfferId;
/// use ppu_uringd::wire::control::FromPpu;
/// use ppu_uringd::wire::frame::pages;
/// let messages = pages((0..2500).map(OfferId), 1000).map(|offers| FromPpu::Stored { offers });
/// assert_eq!(messages.count(), 3);
/// ```
pub fn pages<T: Serialize>(items: impl IntoIterator<Item = T>, most: usize) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut page = Vec::new();
        let mut room = MAX_FRAME_BYTES - PAGE_OVERHEAD_BYTES;
        while page.len() < most.max(1) {
            let Some(item) = items.next_if(|item| page.is_empty() || encoded_bytes(item) <= room) else {
                break;
            };
            room = room.saturating_sub(encoded_bytes(&item));
            page.push(item);
        }
        (!page.is_empty()).then_some(page)
    })
}

/// Variant number and list length: two varints of at most 5 bytes.
const PAGE_OVERHEAD_BYTES: usize = 10;

/// What cannot be encoded fits nowhere: it gets a page of its own, and [`encode`] says why.
fn encoded_bytes<T: Serialize>(item: &T) -> usize {
    postcard::experimental::serialized_size(item).unwrap_or(usize::MAX)
}

/// Makes messages of bytes that come in pieces of any size. Holds no more than what was fed since `next_message` last returned `None`,
/// and one frame.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    limit: usize,
}

impl Decoder {
    /// Bodies longer than `limit` bytes are refused as soon as their length is known.
    pub fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), limit }
    }

    /// Changes the limit for frames that were not yet taken.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The next bytes of the connection.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// How many bytes are missing to the end of the current frame, or of its length. Who reads no more than that never
    /// takes bytes from a connection that are not frames (a data connection after its handshake).
    ///
    /// # Errors
    /// [`FrameError::TooLong`].
    pub fn missing(&self) -> Result<usize, FrameError> {
        let whole = LENGTH_BYTES + self.body_length()?.unwrap_or(0);
        Ok(whole.saturating_sub(self.buffer.len()))
    }

    /// The next message; `None` until more bytes are fed. Skips messages that a newer release has added.
    ///
    /// # Errors
    /// [`FrameError`]; the connection should be closed, with the error as the reason.
    pub fn next_message<M: Message>(&mut self) -> Result<Option<M>, FrameError> {
        while let Some(body) = self.next_body()? {
            if let Some(message) = decode(&body)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// The next frame's body as it came.
    ///
    /// # Errors
    /// [`FrameError::TooLong`].
    pub fn next_body(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.body_length()? else { return Ok(None) };
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Of the frame at the front; `None` where its length is not yet here.
    fn body_length(&self) -> Result<Option<usize>, FrameError> {
        let Some(length) = self.buffer.first_chunk() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > self.limit {
            return Err(FrameError::TooLong { length, limit: self.limit });
        }
        Ok(Some(length))
    }
}

/// The message in a frame's body; `None` if it is of a variant that this release does not know. A known variant must fill
/// the body exactly, and an unknown variant of an enum *inside* it is malformed: skipping a `Withdrawn` for its
/// reason would leave an offer open for ever.
///
/// # Errors
/// [`FrameError::Malformed`], [`FrameError::TrailingBytes`].
pub fn decode<M: Message>(body: &[u8]) -> Result<Option<M>, FrameError> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(Some(message)),
        Ok((_, rest)) => Err(FrameError::TrailingBytes(rest.len())),
        Err(error) => match postcard::take_from_bytes::<u32>(body) {
            Ok((variant, _)) if variant >= M::VARIANTS => Ok(None),
            _ => Err(FrameError::Malformed(in_words(error))),
        },
    }
}

fn in_words(error: postcard::Error) -> &'static str {
    match error {
        postcard::Error::DeserializeUnexpectedEnd => "it ends too early",
        postcard::Error::DeserializeBadVarint => "a number exceeds its range",
        postcard::Error::DeserializeBadBool => "neither true nor false",
        postcard::Error::DeserializeBadOption => "neither present nor absent",
        postcard::Error::DeserializeBadUtf8 => "text that is not UTF-8",
        _ => "an impossible value, such as a path with '..' or an unknown reason",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::file_version::{Identity, OfferId, TransferId};
    use crate::model::path::{PATH_MAX_BYTES, RelPath};
    use crate::model::shift::{Began, ShiftId};
    use crate::model::trouble::{ABOUT_MAX_BYTES, About, Matter, TEXT_MAX_BYTES, Text};
    use crate::wire::control::{
        Decline, OFFER_PAGE_FILES, OFFER_WINDOW, Offered, Report, Wanted, Withdrawal,
    };

    #[test]
    fn variants_are_counted_right() {
        fn check<M: Message>() {
            // Zeros are the smallest contents of every variant.
            let known = |variant: u32| {
                let body = [postcard::to_stdvec(&variant).unwrap(), vec![0; 100]].concat();
                postcard::take_from_bytes::<M>(&body).is_ok()
            };
            assert!((0..M::VARIANTS).all(known));
            assert!(!known(M::VARIANTS));
        }
        check::<FromDetector>();
        check::<FromPpu>();
    }

    #[test]
    fn numbers_on_the_wire_are_for_ever() {
        // As in PROTOCOL.md; of an empty message the number is all, or followed by zeros.
        assert_eq!(decode(&[1]), Ok(Some(FromDetector::ManifestBegin)));
        assert_eq!(decode(&[2]), Ok(Some(FromDetector::ManifestEnd)));
        assert_eq!(decode(&[3, 0]), Ok(Some(FromDetector::Offer { files: vec![] })));
        let why = Withdrawal::Replaced;
        assert_eq!(decode(&[4, 7, 3]), Ok(Some(FromDetector::Withdrawn { offer: OfferId(7), why })));
        let why = Decline::Failed("x".to_owned());
        assert_eq!(
            decode(&[5, 7, 4, 1, b'x']),
            Ok(Some(FromDetector::Declined { transfer: TransferId(7), why }))
        );
        assert_eq!(decode(&[6, 0]), Ok(Some(FromDetector::Gone { offers: vec![] })));
        assert_eq!(decode(&[7, 1]), Ok(Some(FromDetector::ShiftWord { shift: ShiftId(-1) })));
        let reply = FromDetector::ClockReply { sent_ns: 1, received_ns: 2, replied_ns: 3 };
        assert_eq!(decode(&[8, 2, 4, 6]), Ok(Some(reply)));
        assert_eq!(decode(&[9, 0]), Ok(Some(FromDetector::Goodbye { reason: String::new() })));
        let report = Report {
            life: 1,
            number: 2,
            us_ago: 3,
            matter: Matter::Clock,
            about: About::try_from(b"/".to_vec()).unwrap(),
            text: Text::cut("x"),
            lasts: true,
        };
        assert_eq!(decode(&[10, 1, 2, 3, 4, 1, b'/', 1, b'x', 1]), Ok(Some(FromDetector::Trouble(report))));
        assert_eq!(decode(&[11, 7]), Ok(Some(FromDetector::TroubleOver { number: 7 })));
        assert_eq!(decode(&[12, 0]), Ok(Some(FromDetector::Coming { files: vec![] })));

        assert_eq!(decode(&[0]), Ok(Some(FromPpu::Heartbeat)));
        let began = FromPpu::ShiftBegan { shift: ShiftId(1), source: None, began: Began::Now, more: false };
        assert_eq!(decode(&[1, 2, 0, 1, 0]), Ok(Some(began)));
        assert_eq!(decode(&[2, 0]), Ok(Some(FromPpu::Want { wants: vec![] })));
        assert_eq!(decode(&[3, 0]), Ok(Some(FromPpu::Have { offers: vec![] })));
        assert_eq!(decode(&[4, 0]), Ok(Some(FromPpu::Landed { offers: vec![] })));
        assert_eq!(decode(&[5, 1, 9]), Ok(Some(FromPpu::Stored { offers: vec![OfferId(9)] })));
        assert_eq!(decode(&[6, 2]), Ok(Some(FromPpu::ClockProbe { sent_ns: 1 })));
        assert_eq!(decode(&[7, 0]), Ok(Some(FromPpu::Goodbye { reason: String::new() })));
        assert_eq!(decode(&[8, 0]), Ok(Some(FromPpu::Fell { offers: vec![] })));
        assert_eq!(decode(&[9, 7]), Ok(Some(FromPpu::Noted { number: 7 })));
        let grant = FromPpu::Grant { transfers: vec![TransferId(7)], max_bytes: 9 };
        assert_eq!(decode(&[10, 1, 7, 9]), Ok(Some(grant)));
        assert_eq!(decode(&[11, 7]), Ok(Some(FromPpu::NotTaken { transfer: TransferId(7) })));
    }

    #[test]
    fn a_variant_of_a_newer_release_is_skipped() {
        let unknown = [&[3, 0, 0, 0][..], &[FromPpu::VARIANTS as u8, 1, 2]].concat();
        let mut decoder = Decoder::new(MAX_FRAME_BYTES);
        decoder.feed(&unknown);
        decoder.feed(&[5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
        decoder.feed(&encode(&FromPpu::Heartbeat).unwrap());
        decoder.feed(&unknown);
        assert_eq!(decoder.next_message(), Ok(Some(FromPpu::Heartbeat)));
        assert_eq!(decoder.next_message::<FromPpu>(), Ok(None));
        assert_eq!(decoder.missing(), Ok(LENGTH_BYTES));
    }

    #[test]
    fn malformed_bodies_are_refused() {
        let refused: &[(&[u8], FrameError)] = &[
            (&[], FrameError::Malformed("it ends too early")),
            (&[0x80], FrameError::Malformed("it ends too early")),
            (&[0, 0], FrameError::TrailingBytes(1)),
            (&[1, 0, 2], FrameError::Malformed("neither present nor absent")),
            (&[2, 0xff, 0xff, 0xff, 0xff, 0x0f], FrameError::Malformed("it ends too early")),
            (&[7, 1, 0xff], FrameError::Malformed("text that is not UTF-8")),
            (
                &[1, 0, 1, 2, b'.', b'.'],
                FrameError::Malformed("an impossible value, such as a path with '..' or an unknown reason"),
            ),
            (&[0xff; 6], FrameError::Malformed("a number exceeds its range")),
        ];
        for (body, error) in refused {
            assert_eq!(decode::<FromPpu>(body), Err(error.clone()), "{body:?}");
        }
        let unknown_reason = [4, 1, 99];
        assert!(matches!(decode::<FromDetector>(&unknown_reason), Err(FrameError::Malformed(_))));
        // A trouble of a matter that there is not, and one that is wordier than any may be.
        let unknown_matter = [10, 1, 1, 1, 5, 0, 0, 0];
        assert!(matches!(decode::<FromDetector>(&unknown_matter), Err(FrameError::Malformed(_))));
        for (about, text, fits) in [
            (ABOUT_MAX_BYTES, TEXT_MAX_BYTES, true),
            (ABOUT_MAX_BYTES + 1, 0, false),
            (0, TEXT_MAX_BYTES + 1, false),
        ] {
            let body = (10_u32, 1_u64, 1_u64, 1_u64, 0_u32, vec![b'x'; about], vec![b'x'; text], false);
            let decoded = decode::<FromDetector>(&postcard::to_stdvec(&body).unwrap());
            assert_eq!(decoded.is_ok(), fits, "{about} {text}");
        }
    }

    #[test]
    fn an_oversized_frame_is_refused_by_its_length() {
        let mut decoder = Decoder::new(MAX_UNAUTHENTICATED_FRAME_BYTES);
        decoder.feed(&1_025_u32.to_le_bytes()[..3]);
        assert_eq!(decoder.missing(), Ok(1));
        decoder.feed(&1_025_u32.to_le_bytes()[3..]);
        let too_long = FrameError::TooLong { length: 1_025, limit: 1_024 };
        assert_eq!(decoder.missing(), Err(too_long.clone()));
        assert_eq!(decoder.next_message::<FromPpu>(), Err(too_long.clone()));
        assert_eq!(decoder.next_message::<FromPpu>(), Err(too_long), "the error stays");

        let message = FromPpu::Goodbye { reason: "x".repeat(MAX_FRAME_BYTES) };
        assert!(matches!(encode(&message), Err(FrameError::TooLong { .. })));
        let message = FromPpu::Goodbye { reason: "x".repeat(MAX_FRAME_BYTES - 4) };
        assert_eq!(encode(&message).map(|frame| frame.len()), Ok(MAX_FRAME_BYTES + LENGTH_BYTES));
    }

    #[test]
    fn pages_of_paths_of_any_length_fill_frames_and_fit() {
        let names = ["x".repeat(255).as_str(); 16].join("/");
        let identity = Identity { size: u64::MAX, mtime_ns: i64::MIN, ino: u64::MAX, ctime_ns: i64::MIN };
        for length in (1..=255).chain([PATH_MAX_BYTES]) {
            let path = RelPath::new(&names.as_bytes()[..length]).unwrap();
            let offered = |offer| Offered {
                offer: OfferId(u64::MAX - offer),
                path: path.clone(),
                identity,
                shift: ShiftId(i64::MIN),
                closed_us_ago: u64::MAX,
                fresh: true,
                superseded: u32::MAX,
            };
            let mut expected = 0;
            for files in pages((0..1500).map(offered), OFFER_PAGE_FILES) {
                for file in &files {
                    assert_eq!(file.offer, offered(expected).offer, "in order, none left out");
                    expected += 1;
                }
                let full = files.len() == OFFER_PAGE_FILES || expected == 1500;
                let frame = encode(&FromDetector::Offer { files }).unwrap();
                assert!(full || frame.len() > MAX_FRAME_BYTES - 100 - length, "pages are filled");
            }
            assert_eq!(expected, 1500);
        }
    }

    #[test]
    fn a_whole_window_fits_one_frame_of_any_answer() {
        let offers = vec![OfferId(u64::MAX); OFFER_WINDOW];
        assert!(encode(&FromPpu::Have { offers: offers.clone() }).is_ok());
        assert!(encode(&FromPpu::Landed { offers: offers.clone() }).is_ok());
        assert!(encode(&FromPpu::Stored { offers: offers.clone() }).is_ok());
        assert!(encode(&FromDetector::Gone { offers }).is_ok());
        let known_hash = Some(crate::model::file_version::Hash([0xff; 16]));
        let want = Wanted { transfer: TransferId(u64::MAX), offer: OfferId(u64::MAX), known_hash };
        assert_eq!(pages(vec![want; OFFER_PAGE_FILES], OFFER_PAGE_FILES).count(), 1);
        assert_eq!(pages(vec![want; OFFER_PAGE_FILES], 0).count(), OFFER_PAGE_FILES, "0 cannot stall");
        assert_eq!(pages(Vec::<Wanted>::new(), 9).count(), 0);
    }
}
