//! Small files, several to a batch: read into one buffer, hashed there, and sent from it with a single operation.
//!
//! Splicing saves a copy, but the hash needs one anyway, and every splice is handed to another thread: up to
//! [`STAGED_FILE_MAX`] this way is cheaper. It is also stricter: what was hashed is what is sent.

use crate::model::file_version::Hash;
use crate::model::offer::Decline;
use crate::model::send::{SendJob, SendOutcome, SendReport};
use crate::wire::data::{
    BATCH_BYTES_MAX, BATCH_FILES_MAX, FileHeader, Status, TRAILER_BYTES, Trailer, encode_headers,
    headers_bytes,
};

use super::settle::Settling;
use super::source::Source;

/// Larger files are spliced: 512 KiB.
pub(super) const STAGED_FILE_MAX: u64 = 512 << 10;

/// Room for the headers of a full batch, before the payload.
const PAYLOAD_AT: usize = headers_bytes(BATCH_FILES_MAX);
const BUFFER_BYTES: usize = PAYLOAD_AT + BATCH_BYTES_MAX as usize + BATCH_FILES_MAX * TRAILER_BYTES;

/// A batch in the making.
pub(super) struct Batch {
    /// Payloads from [`PAYLOAD_AT`] on; headers before and trailers behind them when it is closed.
    buffer: Vec<u8>,
    /// Where the payload ends.
    end: usize,
    headers: Vec<FileHeader>,
    trailers: Vec<Trailer>,
}

/// A batch ready to be sent.
pub(super) struct Closed {
    pub(super) bytes: Vec<u8>,
    pub(super) range: std::ops::Range<usize>,
    /// What is true once it is sent.
    pub(super) reports: Vec<SendReport>,
}

impl Batch {
    /// An empty batch in a buffer that may have been used before.
    pub(super) fn new(mut buffer: Vec<u8>) -> Self {
        buffer.resize(BUFFER_BYTES, 0);
        Self { buffer, end: PAYLOAD_AT, headers: Vec::new(), trailers: Vec::new() }
    }

    /// Whether it can take one more file of this job's size.
    pub(super) fn suits(&self, job: &SendJob) -> bool {
        let payload = (self.end - PAYLOAD_AT) as u64;
        job.identity.size <= STAGED_FILE_MAX.min(BATCH_BYTES_MAX - payload)
            && self.headers.len() < BATCH_FILES_MAX
    }

    /// Adds a file that suits; or says why it will not travel.
    pub(super) fn add(
        &mut self,
        job: &SendJob,
        source: &Source,
        settling: Settling,
    ) -> Result<(), SendOutcome> {
        let declined = |why, identity| Err(SendOutcome::Declined { why, identity });
        let size = source.size() as usize;
        let payload = &mut self.buffer[self.end..self.end + size];
        let read = match source.read(0, payload) {
            Ok(read) => read,
            Err(error) => return declined(Decline::Failed(format!("read: {error}")), None),
        };
        let hash = Hash::of(payload);
        let identity = match source.now() {
            Ok(Some(now)) if now == source.header.identity && read == size => now,
            Ok(now) => return declined(Decline::Changed, now),
            Err(error) => return declined(Decline::Failed(format!("statx: {error}")), None),
        };
        let settled = settling.is_settled(identity.ctime_ns);
        if job.known_hash == Some(hash) {
            return declined(Decline::Unchanged { identity, settled }, Some(identity));
        }
        self.end += size;
        self.headers.push(source.header);
        self.trailers.push(Trailer {
            transfer: job.transfer,
            status: Status::Unchanged,
            settled,
            hash,
            identity,
        });
        Ok(())
    }

    /// Puts headers and trailers around the payload; gives the buffer back if there is nothing to send.
    pub(super) fn close(mut self) -> Result<Closed, Vec<u8>> {
        if self.headers.is_empty() {
            return Err(self.buffer);
        }
        let start = PAYLOAD_AT - headers_bytes(self.headers.len());
        let mut around = Vec::with_capacity(PAYLOAD_AT);
        encode_headers(&self.headers, &mut around);
        self.buffer[start..PAYLOAD_AT].copy_from_slice(&around);
        around.clear();
        self.trailers.iter().for_each(|trailer| trailer.encode(&mut around));
        let end = self.end + around.len();
        self.buffer[self.end..end].copy_from_slice(&around);
        let reports = self.trailers.into_iter().map(|Trailer { transfer, identity, settled, .. }| {
            SendReport { transfer, outcome: SendOutcome::Sent { identity, settled } }
        });
        Ok(Closed { bytes: self.buffer, range: start..end, reports: reports.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::file_version::{Identity, TransferId};
    use crate::model::path::RelPath;
    use crate::rooted::FileStat;
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::path::PathBuf;

    struct Room(tempfile::TempDir);

    impl Room {
        fn file(&self) -> PathBuf {
            self.0.path().join("x")
        }

        /// A file of `content`, opened as offered.
        fn source(&self, content: &[u8], known_hash: Option<Hash>) -> (SendJob, Source) {
            std::fs::write(self.file(), content).unwrap();
            let stat = FileStat::of(File::open(self.file()).unwrap()).unwrap();
            let FileStat { size, mtime_ns, ino, ctime_ns, .. } = stat;
            let identity = Identity { size, mtime_ns, ino, ctime_ns };
            let path = RelPath::new(b"x").unwrap();
            let job = SendJob { transfer: TransferId(1), path, identity, known_hash };
            let source = Source::open(&job, &|_| File::open(self.file()).map(Into::into));
            (job, source.map_err(|outcome| format!("{outcome:?}")).unwrap())
        }
    }

    fn room() -> Room {
        Room(tempfile::tempdir_in("/dev/shm").unwrap())
    }

    #[test]
    fn what_changes_after_it_was_opened_does_not_travel() {
        let changes: [fn(&File); 3] = [
            |file| file.write_all_at(b"X", 3).unwrap(),
            |file| file.set_len(4).unwrap(),
            |file| file.set_len(40).unwrap(),
        ];
        for change in changes {
            let room = room();
            let (job, source) = room.source(b"0123456789", None);
            change(&File::options().write(true).open(room.file()).unwrap());
            let mut batch = Batch::new(Vec::new());
            let outcome = batch.add(&job, &source, Settling::AtOnce).unwrap_err();
            let changed =
                |why: &Decline, now: Option<Identity>| *why == Decline::Changed && now != Some(job.identity);
            assert!(
                matches!(&outcome, SendOutcome::Declined { why, identity } if changed(why, *identity)),
                "{outcome:?}"
            );
            assert!(batch.close().is_err(), "nothing to send");
        }
    }

    #[test]
    fn what_is_known_does_not_travel() {
        let room = room();
        let (job, source) = room.source(b"0123456789", Some(Hash::of(b"0123456789")));
        let outcome = Batch::new(Vec::new()).add(&job, &source, Settling::AtOnce).unwrap_err();
        let why = Decline::Unchanged { identity: job.identity, settled: true };
        assert_eq!(outcome, SendOutcome::Declined { why, identity: Some(job.identity) });
    }

    #[test]
    fn a_batch_is_contiguous_and_bounded() {
        let room = room();
        let (mut job, source) = room.source(b"0123456789", None);
        let mut batch = Batch::new(Vec::new());
        for _ in 0..BATCH_FILES_MAX {
            assert!(batch.suits(&job));
            batch.add(&job, &source, Settling::AfterTick).unwrap();
        }
        assert!(!batch.suits(&job));
        let closed = batch.close().map_err(drop).unwrap();
        assert_eq!(closed.range.len(), headers_bytes(64) + 640 + 64 * TRAILER_BYTES);
        assert_eq!(&closed.bytes[closed.range.start..][..4], b"BTCH");
        assert_eq!(&closed.bytes[PAYLOAD_AT..][..20], b"01234567890123456789");

        let empty = Batch::new(closed.bytes);
        for (size, suits) in [(STAGED_FILE_MAX, true), (STAGED_FILE_MAX + 1, false)] {
            job.identity.size = size;
            assert_eq!(empty.suits(&job), suits);
        }
    }
}
