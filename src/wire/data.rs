//! What a data connection carries (PROTOCOL.md, "Data connections"): fixed-size headers and trailers around the payloads.

use crate::model::file_version::{Hash, Identity, MODE_MASK, TransferId};

/// "BTCH".
const MAGIC: u32 = 0x4843_5442;
/// Most files in one batch.
pub const BATCH_FILES_MAX: usize = 64;
/// Most payload of a batch of several files: 1 MiB.
pub const BATCH_BYTES_MAX: u64 = 1 << 20;
/// After so many bytes a file can be given up: 16 MiB.
pub const SEGMENT_BYTES: u64 = 16 << 20;
/// Of the batch header, without the file headers that follow it.
pub const BATCH_HEADER_BYTES: usize = 8;
/// Of a file header.
pub const FILE_HEADER_BYTES: usize = 56;
/// Of the mark between two segments.
pub const MARK_BYTES: usize = 4;
/// Of a trailer.
pub const TRAILER_BYTES: usize = 72;

/// What precedes a file's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// The want that it answers.
    pub transfer: TransferId,
    /// On the detector, before the send. Its size is the payload's.
    pub identity: Identity,
    /// Permission bits.
    pub mode: u32,
}

/// What follows a batch's payloads, for each file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// The want that it answers.
    pub transfer: TransferId,
    /// What the payload is worth.
    pub status: Status,
    /// No later write can leave the identity equal.
    pub settled: bool,
    /// Over the bytes that the sender read.
    pub hash: Hash,
    /// On the detector, after the send.
    pub identity: Identity,
}

/// What the sender found when it had sent a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The payload is the version that was announced, whole.
    Unchanged,
    /// The file changed meanwhile: the payload is worth nothing.
    Changed,
    /// It could not be read: the payload is worth nothing.
    Failed,
}

/// Between two segments of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The next segment follows.
    GoesOn,
    /// The payload ends here; the trailer says why.
    EndsHere,
}

/// Why the bytes of a data connection mean nothing. The connection is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// Not the beginning of a batch.
    #[error("batch begins with {0:#010x} instead of its magic number")]
    Magic(u32),
    /// None, or more than [`BATCH_FILES_MAX`].
    #[error("batch of {0} files, where 1 to {BATCH_FILES_MAX} are allowed")]
    Count(u16),
    /// More than [`BATCH_BYTES_MAX`] in a batch of several files.
    #[error("batch of several files with {0} bytes, where at most {BATCH_BYTES_MAX} are allowed")]
    BatchBytes(u64),
    /// Larger than any file.
    #[error("file of {0} bytes")]
    Size(u64),
    /// Neither 0 nor 1.
    #[error("segment mark {0}")]
    Mark(u32),
    /// No such status.
    #[error("trailer with status {0}")]
    Status(u8),
    /// Neither 0 nor 1.
    #[error("trailer with settled = {0}")]
    Settled(u8),
    /// Trailers follow in the order of the headers.
    #[error("trailer of transfer {found}, where {expected} was due")]
    Order {
        /// In the trailer.
        found: u64,
        /// In the header.
        expected: u64,
    },
    /// `Unchanged`, and yet the identity is another.
    #[error("trailer of transfer {0} says unchanged, but tells another identity")]
    Identity(u64),
    /// A file that ended early must not be called unchanged.
    #[error("transfer {0} ended early, but its trailer says unchanged")]
    Cut(u64),
}

/// Appends the batch header and the file headers.
pub fn encode_headers(files: &[FileHeader], to: &mut Vec<u8>) {
    debug_assert!((1..=BATCH_FILES_MAX).contains(&files.len()));
    to.extend_from_slice(&MAGIC.to_le_bytes());
    to.extend_from_slice(&(files.len() as u16).to_le_bytes());
    to.extend_from_slice(&[0; 2]);
    for file in files {
        to.extend_from_slice(&file.transfer.0.to_le_bytes());
        encode_identity(&file.identity, to);
        to.extend_from_slice(&file.mode.to_le_bytes());
        to.extend_from_slice(&[0; 12]);
    }
}

/// Bytes of [`encode_headers`].
pub const fn headers_bytes(files: usize) -> usize {
    BATCH_HEADER_BYTES + files * FILE_HEADER_BYTES
}

/// How many files a batch has.
///
/// # Errors
/// [`DataError::Magic`], [`DataError::Count`].
pub fn decode_batch_header(bytes: &[u8; BATCH_HEADER_BYTES]) -> Result<usize, DataError> {
    let mut fields = Fields(bytes);
    match u32::from_le_bytes(fields.take()) {
        MAGIC => {}
        other => return Err(DataError::Magic(other)),
    }
    match u16::from_le_bytes(fields.take()) {
        count if (1..=BATCH_FILES_MAX).contains(&usize::from(count)) => Ok(usize::from(count)),
        count => Err(DataError::Count(count)),
    }
}

impl FileHeader {
    /// The next file header.
    ///
    /// # Errors
    /// [`DataError::Size`].
    pub fn decode(bytes: &[u8; FILE_HEADER_BYTES]) -> Result<Self, DataError> {
        let mut fields = Fields(bytes);
        let transfer = TransferId(u64::from_le_bytes(fields.take()));
        let identity = decode_identity(&mut fields);
        if i64::try_from(identity.size).is_err() {
            return Err(DataError::Size(identity.size));
        }
        let mode = u32::from_le_bytes(fields.take()) & MODE_MASK;
        Ok(Self { transfer, identity, mode })
    }
}

/// Whether the sizes of a batch's files are allowed together.
///
/// # Errors
/// [`DataError::BatchBytes`].
pub fn check_batch(files: &[FileHeader]) -> Result<(), DataError> {
    let bytes = files.iter().fold(0u64, |sum, file| sum.saturating_add(file.identity.size));
    if files.len() > 1 && bytes > BATCH_BYTES_MAX { Err(DataError::BatchBytes(bytes)) } else { Ok(()) }
}

impl Mark {
    /// As it travels.
    pub fn encode(self) -> [u8; MARK_BYTES] {
        u32::from(self == Self::GoesOn).to_le_bytes()
    }

    /// As it came.
    ///
    /// # Errors
    /// [`DataError::Mark`].
    pub fn decode(bytes: [u8; MARK_BYTES]) -> Result<Self, DataError> {
        match u32::from_le_bytes(bytes) {
            0 => Ok(Self::EndsHere),
            1 => Ok(Self::GoesOn),
            other => Err(DataError::Mark(other)),
        }
    }
}

impl Trailer {
    /// Appends it.
    pub fn encode(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.transfer.0.to_le_bytes());
        to.push(match self.status {
            Status::Unchanged => 0,
            Status::Changed => 1,
            Status::Failed => 2,
        });
        to.push(u8::from(self.settled));
        to.extend_from_slice(&[0; 6]);
        to.extend_from_slice(&self.hash.0);
        encode_identity(&self.identity, to);
        to.extend_from_slice(&[0; 8]);
    }

    /// The trailer that belongs to `header`. `cut`: the payload ended at a mark.
    ///
    /// # Errors
    /// [`DataError`] of a trailer.
    pub fn decode(bytes: &[u8; TRAILER_BYTES], header: &FileHeader, cut: bool) -> Result<Self, DataError> {
        let mut fields = Fields(bytes);
        let transfer = TransferId(u64::from_le_bytes(fields.take()));
        if transfer != header.transfer {
            return Err(DataError::Order { found: transfer.0, expected: header.transfer.0 });
        }
        let status = match fields.take() {
            [0] => Status::Unchanged,
            [1] => Status::Changed,
            [2] => Status::Failed,
            [other] => return Err(DataError::Status(other)),
        };
        let settled = match fields.take() {
            [0] => false,
            [1] => true,
            [other] => return Err(DataError::Settled(other)),
        };
        let _reserved: [u8; 6] = fields.take();
        let hash = Hash(fields.take());
        let identity = decode_identity(&mut fields);
        match status {
            Status::Unchanged if cut => Err(DataError::Cut(transfer.0)),
            Status::Unchanged if identity != header.identity => Err(DataError::Identity(transfer.0)),
            _ => Ok(Self { transfer, status, settled, hash, identity }),
        }
    }
}

fn encode_identity(identity: &Identity, to: &mut Vec<u8>) {
    to.extend_from_slice(&identity.size.to_le_bytes());
    to.extend_from_slice(&identity.mtime_ns.to_le_bytes());
    to.extend_from_slice(&identity.ino.to_le_bytes());
    to.extend_from_slice(&identity.ctime_ns.to_le_bytes());
}

fn decode_identity(fields: &mut Fields<'_>) -> Identity {
    Identity {
        size: u64::from_le_bytes(fields.take()),
        mtime_ns: i64::from_le_bytes(fields.take()),
        ino: u64::from_le_bytes(fields.take()),
        ctime_ns: i64::from_le_bytes(fields.take()),
    }
}

/// Takes a record of fixed size apart. What lies beyond its end reads as zeros, so that there is nothing to panic about; the tests pin
/// that no record is overrun.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((field, rest)) = self.0.split_first_chunk() else { return [0; N] };
        self.0 = rest;
        *field
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn identity() -> impl Strategy<Value = Identity> {
        (0..=i64::MAX as u64, any::<i64>(), any::<u64>(), any::<i64>())
            .prop_map(|(size, mtime_ns, ino, ctime_ns)| Identity { size, mtime_ns, ino, ctime_ns })
    }

    fn header() -> impl Strategy<Value = FileHeader> {
        (any::<u64>(), identity(), 0..=MODE_MASK).prop_map(|(transfer, identity, mode)| FileHeader {
            transfer: TransferId(transfer),
            identity,
            mode,
        })
    }

    fn trailer() -> impl Strategy<Value = Trailer> {
        let status = prop_oneof![Just(Status::Unchanged), Just(Status::Changed), Just(Status::Failed)];
        (any::<u64>(), status, any::<bool>(), any::<[u8; 16]>(), identity()).prop_map(
            |(transfer, status, settled, hash, identity)| Trailer {
                transfer: TransferId(transfer),
                status,
                settled,
                hash: Hash(hash),
                identity,
            },
        )
    }

    proptest! {
        #[test]
        fn headers_come_back(files in proptest::collection::vec(header(), 1..=BATCH_FILES_MAX)) {
            let mut bytes = Vec::new();
            encode_headers(&files, &mut bytes);
            prop_assert_eq!(bytes.len(), headers_bytes(files.len()));
            let (batch, rest) = bytes.split_first_chunk().unwrap();
            prop_assert_eq!(decode_batch_header(batch), Ok(files.len()));
            let decoded: Result<Vec<_>, _> =
                rest.chunks(FILE_HEADER_BYTES).map(|h| FileHeader::decode(h.try_into().unwrap())).collect();
            prop_assert_eq!(decoded, Ok(files));
        }

        #[test]
        fn trailers_come_back(trailer in trailer()) {
            let mut bytes = Vec::new();
            trailer.encode(&mut bytes);
            let header = FileHeader { transfer: trailer.transfer, identity: trailer.identity, mode: 0 };
            let decoded = Trailer::decode(bytes.as_slice().try_into().unwrap(), &header, false);
            prop_assert_eq!(decoded, Ok(trailer));
        }

        #[test]
        fn no_bytes_panic(header in any::<[u8; FILE_HEADER_BYTES]>(), batch in any::<[u8; 8]>(), trailer in any::<[u8; TRAILER_BYTES]>()) {
            let _ = decode_batch_header(&batch);
            if let Ok(header) = FileHeader::decode(&header) {
                let _ = Trailer::decode(&trailer, &header, true);
                prop_assert!(header.mode <= MODE_MASK && header.identity.size <= i64::MAX as u64);
            }
        }
    }

    const IDENTITY: Identity = Identity { size: 5, mtime_ns: -1, ino: 3, ctime_ns: 4 };

    #[test]
    fn bytes_of_a_batch_are_pinned() {
        let mut bytes = Vec::new();
        encode_headers(
            &[FileHeader { transfer: TransferId(2), identity: IDENTITY, mode: 0o644 }],
            &mut bytes,
        );
        let mut expected = b"BTCH\x01\0\0\0\x02\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0".to_vec();
        expected.extend([0xff; 8]);
        expected.extend(b"\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\xa4\x01\0\0");
        expected.extend([0; 12]);
        assert_eq!(bytes, expected);
        assert_eq!(Mark::GoesOn.encode(), [1, 0, 0, 0]);

        let mut bytes = Vec::new();
        let status = Status::Changed;
        let hash = Hash(*b"0123456789abcdef");
        Trailer { transfer: TransferId(2), status, settled: true, hash, identity: IDENTITY }
            .encode(&mut bytes);
        let mut expected =
            b"\x02\0\0\0\0\0\0\0\x01\x01\0\0\0\0\0\x000123456789abcdef\x05\0\0\0\0\0\0\0".to_vec();
        expected.extend([0xff; 8]);
        expected.extend(b"\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn hostile_values_are_refused() {
        let batch = |count: u16| {
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(b"BTCH");
            bytes[4..6].copy_from_slice(&count.to_le_bytes());
            decode_batch_header(&bytes)
        };
        assert_eq!((batch(0), batch(65)), (Err(DataError::Count(0)), Err(DataError::Count(65))));
        assert_eq!(decode_batch_header(b"GET / HT"), Err(DataError::Magic(0x2054_4547)));

        let header = FileHeader { transfer: TransferId(2), identity: IDENTITY, mode: 0 };
        let mut bytes = Vec::new();
        let identity = Identity { size: u64::MAX, ..IDENTITY };
        encode_headers(&[FileHeader { identity, ..header }], &mut bytes);
        assert_eq!(FileHeader::decode(bytes[8..].try_into().unwrap()), Err(DataError::Size(u64::MAX)));
        let half = FileHeader { identity: Identity { size: 1 + BATCH_BYTES_MAX / 2, ..IDENTITY }, ..header };
        assert_eq!(check_batch(&[half, half]), Err(DataError::BatchBytes(2 + BATCH_BYTES_MAX)));
        assert_eq!(
            check_batch(&[FileHeader { identity: Identity { size: 1 << 60, ..IDENTITY }, ..header }]),
            Ok(())
        );
        assert_eq!(Mark::decode([2, 0, 0, 0]), Err(DataError::Mark(2)));

        let good = Trailer {
            transfer: TransferId(2),
            status: Status::Unchanged,
            settled: false,
            hash: Hash([0; 16]),
            identity: IDENTITY,
        };
        let decode = |trailer: &Trailer, at: usize, byte: u8, cut| {
            let mut bytes = Vec::new();
            trailer.encode(&mut bytes);
            bytes[at] = byte;
            Trailer::decode(bytes.as_slice().try_into().unwrap(), &header, cut)
        };
        assert_eq!(decode(&good, 8, 0, false), Ok(good));
        assert_eq!(decode(&good, 0, 9, false), Err(DataError::Order { found: 9, expected: 2 }));
        assert_eq!(decode(&good, 8, 3, false), Err(DataError::Status(3)));
        assert_eq!(decode(&good, 9, 2, false), Err(DataError::Settled(2)));
        assert_eq!(decode(&good, 32, 6, false), Err(DataError::Identity(2)));
        assert_eq!(decode(&good, 8, 0, true), Err(DataError::Cut(2)));
    }
}
