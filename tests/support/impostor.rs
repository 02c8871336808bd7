//! Who speaks the protocol in a detector's place.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use ppu_uringd::model::file_version::{Hash, Identity, TransferId};
use ppu_uringd::model::shift::ShiftId;
use ppu_uringd::wire::control::{FromDetector, FromPpu};
use ppu_uringd::wire::data::{FileHeader, Status, Trailer, encode_headers};
use ppu_uringd::wire::frame::{Decoder, MAX_FRAME_BYTES, encode};
use ppu_uringd::wire::handshake::{Key, Server, SessionId};

use super::PATIENCE;

/// A detector's end of a connection, after its handshake.
pub fn let_in(listener: &TcpListener) -> TcpStream {
    let (mut connection, _) = listener.accept().unwrap();
    let mut server = Server::new(&Key::new(b"a key for tests"), SessionId([2; 16]), [3; 32]);
    let mut buffer = [0; 1024];
    loop {
        let count = connection.read(&mut buffer).unwrap();
        assert_ne!(count, 0, "the PPU has left");
        let caller = server.feed(&buffer[..count]).unwrap();
        connection.write_all(&server.take_output()).unwrap();
        if caller.is_some() {
            connection.write_all(&server.welcome().unwrap().0).unwrap();
            return connection;
        }
    }
}

/// A session with a PPU, whose manifest has ended with nothing in it.
pub struct Impostor {
    control: TcpStream,
    decoder: Decoder,
    data: Vec<TcpStream>,
    /// The current one.
    pub shift: ShiftId,
    pub shifts_heard: u64,
    /// Files may come unasked with these.
    pub grants: Vec<TransferId>,
}

impl Impostor {
    pub fn connect(listener: &TcpListener, streams: usize) -> Self {
        let control = let_in(listener);
        control.set_read_timeout(Some(PATIENCE)).unwrap();
        let data = (0..streams).map(|_| let_in(listener)).collect();
        let (decoder, shift) = (Decoder::new(MAX_FRAME_BYTES), ShiftId(0));
        let mut this = Self { control, decoder, data, shift, shifts_heard: 0, grants: Vec::new() };
        this.say(&FromDetector::Heartbeat(Default::default()));
        while this.shift == ShiftId(0) || this.grants.is_empty() {
            match this.hear() {
                FromPpu::ShiftBegan { shift, more: false, .. } => this.shift = shift,
                FromPpu::Grant { transfers, .. } => this.grants = transfers,
                _ => {}
            }
        }
        let shift = this.shift;
        for message in
            [FromDetector::ShiftWord { shift }, FromDetector::ManifestBegin, FromDetector::ManifestEnd]
        {
            this.say(&message);
        }
        this
    }

    pub fn say(&mut self, message: &FromDetector) {
        self.control.write_all(&encode(message).unwrap()).unwrap();
    }

    /// The next message.
    pub fn hear(&mut self) -> FromPpu {
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                self.shifts_heard += u64::from(matches!(message, FromPpu::ShiftBegan { .. }));
                return message;
            }
            let mut bytes = [0; 4096];
            let count = self.control.read(&mut bytes).unwrap();
            assert_ne!(count, 0, "the PPU has left");
            self.decoder.feed(&bytes[..count]);
        }
    }

    /// A whole file on a data connection.
    pub fn send(&mut self, stream: usize, transfer: TransferId, identity: Identity, content: &[u8]) {
        let mut bytes = Vec::new();
        encode_headers(&[FileHeader { transfer, identity, mode: 0o640 }], &mut bytes);
        bytes.extend(content);
        let (status, hash) = (Status::Unchanged, Hash::of(content));
        Trailer { transfer, status, settled: true, hash, identity }.encode(&mut bytes);
        self.data[stream].write_all(&bytes).unwrap();
    }
}
