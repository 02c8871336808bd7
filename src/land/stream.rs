//! One data connection on the PPU: receives files (PROTOCOL.md, "Data connections"), verifies them, has them published.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ppu_uring::{Driver, Limits};

use super::payload::{Payload, Receiving};
use crate::model::file_version::Hash;
use crate::model::job::{LandFailure, LandReport, Landed};
use crate::wire::data::{
    BATCH_HEADER_BYTES, DataError, FILE_HEADER_BYTES, FileHeader, Status, TRAILER_BYTES, Trailer,
    check_batch, decode_batch_header,
};

/// What a stream needs of its driver: it receives, one operation at a time.
pub const LIMITS: Limits = Limits { depth: 1, workers: 1 };

/// What a landing stream asks of the rest of the PPU.
pub trait Lander {
    /// A file without a public name. Dropped, it leaves nothing behind.
    type Temp;

    /// A file arrives. A temporary file of the announced size already (tmpfs decides by it whether to use huge pages), open for writing,
    /// not in append mode.
    ///
    /// # Errors
    /// [`Refusal`].
    fn begin(&mut self, header: &FileHeader) -> Result<(Self::Temp, Arc<OwnedFd>), Refusal>;

    /// The content is complete and verified: gives it its attributes and its name.
    ///
    /// # Errors
    /// Nothing of it is left.
    fn publish(
        &mut self,
        temp: Self::Temp,
        header: &FileHeader,
        trailer: &Trailer,
    ) -> Result<Landed, LandFailure>;

    /// The files of a batch are published, one right after the other: what was kept for the next one of them is worth nothing any more.
    fn batch_ends(&mut self) {}

    /// How a transfer ended.
    fn report(&mut self, report: LandReport);
}

/// Why an arriving file is not taken.
#[derive(Debug)]
pub enum Refusal {
    /// It was never wanted, or not as this: the peer does not keep to the protocol.
    Unwanted,
    /// It cannot be taken: its payload is discarded.
    Failed(LandFailure),
}

/// Why a stream ended. Transfers that were not reported end with the session.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// By the peer, the network, or shutdown(2), in the middle of something.
    #[error("data connection lost: {0}")]
    Lost(#[source] io::Error),
    /// The detector does not keep to the protocol.
    #[error("protocol error on a data connection: {0}")]
    Protocol(#[from] DataError),
    /// Likewise.
    #[error("protocol error on a data connection: transfer {0} was not wanted, or not as it comes")]
    Unwanted(u64),
    /// Not the connection's fault.
    #[error("engine failed: {0}")]
    Engine(#[source] io::Error),
}

/// Lands files until the detector ends the connection between two batches. Another thread ends it by shutdown(2). `verify`: hash what
/// was written, and publish only what has the sender's hash.
///
/// # Errors
/// [`StreamError`]. What had begun and was not published is gone.
pub fn run<L: Lander>(
    connection: TcpStream,
    lander: &mut L,
    verify: bool,
    driver: &mut dyn Driver,
) -> Result<(), StreamError> {
    let mut receiving = Receiving::new(connection, verify, driver);
    while let Some(headers) = receive_headers(&mut receiving)? {
        let mut arrivals = Vec::with_capacity(headers.len());
        for header in headers {
            arrivals.push(receive_file(&mut receiving, lander, header)?);
        }
        for arrival in arrivals {
            let trailer: [u8; TRAILER_BYTES] = receiving.record()?;
            let trailer = Trailer::decode(&trailer, &arrival.header, arrival.cut)?;
            let outcome = arrival.conclude(lander, &trailer, verify);
            lander.report(LandReport { transfer: trailer.transfer, outcome });
        }
        lander.batch_ends();
    }
    Ok(())
}

/// A file whose payload has come.
struct Arrival<T> {
    header: FileHeader,
    /// The payload ended before its time.
    cut: bool,
    /// With the hash of what was written.
    content: Result<(T, Hash), LandFailure>,
}

/// `None`: the connection ended where it may.
fn receive_headers(receiving: &mut Receiving<'_>) -> Result<Option<Vec<FileHeader>>, StreamError> {
    let Some(batch) = receiving.first_record::<BATCH_HEADER_BYTES>()? else { return Ok(None) };
    let count = decode_batch_header(&batch)?;
    let mut headers = Vec::with_capacity(count);
    receiving.records(count, |bytes: &[u8; FILE_HEADER_BYTES]| {
        headers.push(FileHeader::decode(bytes)?);
        Ok(())
    })?;
    check_batch(&headers)?;
    receiving.expect(&headers);
    Ok(Some(headers))
}

fn receive_file<L: Lander>(
    receiving: &mut Receiving<'_>,
    lander: &mut L,
    header: FileHeader,
) -> Result<Arrival<L::Temp>, StreamError> {
    let size = header.identity.size;
    let (temp, file) = match lander.begin(&header) {
        Ok((temp, file)) => (Ok(temp), Some(file)),
        Err(Refusal::Unwanted) => return Err(StreamError::Unwanted(header.transfer.0)),
        Err(Refusal::Failed(why)) => (Err(why), None),
    };
    let Payload { cut, written } = receiving.payload(size, file.as_deref())?;
    let content = temp.and_then(|temp| written.map(|hash| (temp, hash)));
    Ok(Arrival { header, cut, content })
}

impl<T> Arrival<T> {
    fn conclude<L: Lander<Temp = T>>(
        self,
        lander: &mut L,
        trailer: &Trailer,
        verify: bool,
    ) -> Result<Landed, LandFailure> {
        match trailer.status {
            Status::Unchanged => {}
            Status::Changed => return Err(LandFailure::Changed),
            Status::Failed => return Err(LandFailure::SenderFailed),
        }
        let (temp, landed) = self.content?;
        if verify && landed != trailer.hash {
            return Err(LandFailure::Mismatch { sent: trailer.hash, landed });
        }
        lander.publish(temp, &self.header, trailer)
    }
}
