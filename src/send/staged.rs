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

/// Larger files are spliced: 256 KiB.
pub(super) const STAGED_FILE_MAX: u64 = 256 << 10;

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
