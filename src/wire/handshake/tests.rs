use proptest::collection::vec;
use proptest::prelude::*;

use super::message::{ClientHello, FromClient, FromServer, MAGIC, ServerHello};
use super::*;
use crate::wire::frame::{Message, decode, encode};

const PPU: Role = Role::Control { ppu: PpuId([7; 16]) };
const SESSION: SessionId = SessionId([2; 16]);

fn pair(client_key: &[u8], server_key: &[u8], role: Role) -> (Client, Server) {
    let client = Client::new(&Key::new(client_key), role, [1; 32]).unwrap();
    (client, Server::new(&Key::new(server_key), SESSION, [3; 32]))
}

/// Up to the point where the server decides.
fn proved(role: Role) -> (Client, Server, Caller) {
    let (mut client, mut server) = pair(b"key", b"key", role);
    assert_eq!(server.feed(&client.take_output()), Ok(None));
    assert_eq!(client.feed(&server.take_output()), Ok(None));
    let caller = server.feed(&client.take_output()).unwrap().unwrap();
    (client, server, caller)
}

#[test]
fn control_gets_a_new_session_and_data_its_own() {
    let other = SessionId([9; 16]);
    for (role, session) in [(PPU, SESSION), (Role::Data { session: other, stream: 3 }, other)] {
        let (mut client, server, caller) = proved(role);
        assert_eq!(caller, Caller { version: 1, role, software: SOFTWARE.to_owned() });
        let (welcome, _) = server.welcome().unwrap();
        let established = Established { version: 1, session, software: SOFTWARE.to_owned() };
        assert_eq!(client.feed(&welcome), Ok(Some(established)));
    }
}

#[test]
fn bytes_beyond_the_handshake_are_the_sessions() {
    let (mut client, server, _) = proved(PPU);
    let (mut bytes, _) = server.welcome().unwrap();
    let goodbye = crate::wire::control::FromDetector::Goodbye { reason: "x".repeat(2_000) };
    bytes.extend(encode(&goodbye).unwrap());
    assert!(client.feed(&bytes).unwrap().is_some());
    assert_eq!(client.into_decoder().next_message(), Ok(Some(goodbye)), "the greater limit holds now");
}

#[test]
fn other_keys_are_refused_in_words_on_both_sides() {
    for (ours, theirs) in [("a", "b"), ("", "b"), ("a", ""), (&*"x".repeat(64), &*"x".repeat(65))] {
        let (mut client, mut server) = pair(ours.as_bytes(), theirs.as_bytes(), PPU);
        server.feed(&client.take_output()).unwrap();
        assert_eq!(client.feed(&server.take_output()), Err(HandshakeError::KeyDiffers));
        let told = server.feed(&client.take_output()).unwrap_err().to_string();
        assert_eq!(told, "the PPU at the other end refused: key differs: compare key_file on both machines");
        assert_eq!(server.take_output(), b"", "no answer to a refusal");
        assert_eq!(server.welcome().err(), Some(HandshakeError::OutOfTurn));
    }
}

#[test]
fn a_client_that_does_not_check_the_servers_proof_gets_no_further() {
    let (mut client, mut server) = pair(b"guess", b"key", PPU);
    server.feed(&client.take_output()).unwrap();
    server.take_output();
    let proof = FromClient::Proof { proof: [0; 32] };
    assert_eq!(server.feed(&encode(&proof).unwrap()), Err(HandshakeError::KeyDiffers));
    let told = client.feed(&server.take_output()).unwrap_err().to_string();
    assert_eq!(told, "the detector at the other end refused: key differs: compare key_file on both machines");
    assert_eq!(server.feed(&encode(&proof).unwrap()), Err(HandshakeError::OutOfTurn), "one guess only");
}

#[test]
fn keys_are_hmac_keys_without_white_space_around() {
    // RFC 4231, test cases 2 and 6: a short key, and one longer than a block.
    for (key, data, starts) in [
        (&b"  Jefe\r\n"[..], &b"what do ya want for nothing?"[..], [0x5b, 0xdc, 0xc1, 0x46]),
        (&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First", [0x60, 0xe4, 0x31, 0x59]),
    ] {
        let mac: Proof = Key::new(key).0.chain_update(data).finalize().into_bytes().into();
        assert_eq!(mac[..4], starts);
    }
    assert_eq!(format!("{:?}", Key::new(b"secret")), "Key(..)");
}

#[test]
fn another_program_is_recognised() {
    let http = b"GET / HTTP/1.1\r\nHost: detector\r\n\r\n";
    let mut banner = encode(&"SSH-2.0-OpenSSH_9.9").unwrap();
    let mut hello = pair(b"", b"", PPU).0.take_output();
    hello[5] ^= 1; // in the magic
    banner.extend([0; 64]);
    for bytes in [&http[..], &banner, &hello] {
        let (mut client, mut server) = pair(b"", b"", PPU);
        assert_eq!(server.feed(bytes), Err(HandshakeError::NotOurProtocol));
        assert_eq!(server.missing().is_ok(), bytes != http);
        let told = client.feed(&server.take_output()).unwrap_err().to_string();
        assert!(told.starts_with("the detector at the other end refused: the other end does not speak"));
        assert_eq!(pair(b"", b"", PPU).0.feed(bytes), Err(HandshakeError::NotOurProtocol));
    }
}

#[test]
fn versions_are_negotiated_before_the_rest_is_read() {
    let of = |min, max| Versions { min, max };
    assert_eq!(of(1, 3).common(of(2, 5)), Some(3));
    assert_eq!(of(2, 5).common(of(1, 3)), Some(3));
    assert_eq!(of(1, 1).common(of(2, 5)), None);
    assert_eq!(of(4, 2).common(of(1, 9)), None, "nonsense");

    // A hello of a far future whose fields we do not know: variant, magic, 2 to 300, and whatever.
    let body = [&[0][..], &MAGIC, &[2, 0xac, 0x02], &[0xee; 40]].concat();
    let frame = [&(body.len() as u32).to_le_bytes()[..], &body].concat();
    let (mut client, mut server) = pair(b"", b"", PPU);
    assert!(server.feed(&frame).is_err());
    assert_eq!(
        client.feed(&server.take_output()).unwrap_err().to_string(),
        "the detector at the other end refused: the PPU speaks protocol version 2 to 300, the detector 1: \
         install the same release of ppu-uringd on both machines"
    );
}

#[test]
fn greetings_are_laid_out_for_ever() {
    let hello = pair(b"", b"", Role::Data { session: SESSION, stream: 5 }).0.take_output();
    let software = [&[SOFTWARE.len() as u8], SOFTWARE.as_bytes()].concat();
    let body = [&[0], &MAGIC[..], &[1, 1], &[1], &[2; 16], &[5], &software, &[1; 32]].concat();
    assert_eq!(hello, [&(body.len() as u32).to_le_bytes()[..], &body].concat());
    assert_eq!(pair(b"", b"", PPU).0.take_output()[15..32], [&[0], &[7; 16][..]].concat());

    assert_eq!(decode(&[&[1], &[8; 32][..]].concat()), Ok(Some(FromClient::Proof { proof: [8; 32] })));
    assert_eq!(decode(&[2, 1, b'x']), Ok(Some(FromClient::Refused { reason: "x".to_owned() })));
    assert_eq!(decode(&[1]), Ok(Some(FromServer::Welcome)));
    assert_eq!(decode(&[2, 1, b'x']), Ok(Some(FromServer::Refused { reason: "x".to_owned() })));
}

#[test]
fn proofs_cover_what_the_protocol_says() {
    let (mut client, mut server) = pair(b"key", b"key", PPU);
    let hello = client.take_output();
    server.feed(&hello).unwrap();
    let answer = server.take_output();
    client.feed(&answer).unwrap();
    let proof = client.take_output();
    let mac = |parts: &[&[u8]]| -> Proof {
        let mac = parts.iter().fold(Key::new(b"key").0, |mac, part| mac.chain_update(part));
        mac.finalize().into_bytes().into()
    };
    let (unproved, servers_proof) = answer.split_at(answer.len() - 32);
    assert_eq!(servers_proof, mac(&[b"ppu-uringd server", &hello, unproved, &[0; 32]]));
    assert_eq!(&proof[5..], mac(&[b"ppu-uringd client", &hello, &answer]));
}

#[test]
fn a_proved_caller_can_still_be_refused() {
    for why in [Refusal::Busy, Refusal::UnknownSession, Refusal::KeyRequired] {
        let (mut client, server, _) = proved(PPU);
        let error = client.feed(&server.refuse(why)).unwrap_err();
        assert_eq!(error.to_string(), format!("the detector at the other end refused: {why}"));
        assert_eq!(client.take_output(), b"");
    }
}

#[test]
fn nobody_is_welcome_before_the_proof() {
    let (mut client, mut server) = pair(b"", b"", PPU);
    assert_eq!(client.feed(&encode(&FromServer::Welcome).unwrap()), Err(HandshakeError::OutOfTurn));
    assert_eq!(pair(b"", b"", PPU).1.welcome().err(), Some(HandshakeError::OutOfTurn));
    server.feed(&pair(b"", b"", PPU).0.take_output()).unwrap();
    assert_eq!(server.welcome().err(), Some(HandshakeError::OutOfTurn));
}

#[test]
fn recorded_and_reflected_proofs_are_worthless() {
    let (mut client, mut server) = pair(b"key", b"key", PPU);
    let hello = client.take_output();
    server.feed(&hello).unwrap();
    let server_hello = server.take_output();
    client.feed(&server_hello).unwrap();
    let client_proof = client.take_output();

    let mut later = Server::new(&Key::new(b"key"), SESSION, [4; 32]);
    later.feed(&hello).unwrap();
    assert_eq!(later.feed(&client_proof), Err(HandshakeError::KeyDiffers));
    let mut later = Client::new(&Key::new(b"key"), PPU, [4; 32]).unwrap();
    assert_eq!(later.feed(&server_hello), Err(HandshakeError::KeyDiffers));

    let Ok(Some(FromServer::Hello(ServerHello { proof, .. }))) = decode(&server_hello[4..]) else { panic!() };
    let reflected = encode(&FromClient::Proof { proof }).unwrap();
    assert_eq!(server.feed(&reflected), Err(HandshakeError::KeyDiffers));
}

#[test]
fn what_a_peer_says_of_itself_cannot_move_a_terminal() {
    let refused = FromServer::Refused { reason: "\x1b[2J\nkey: bad".to_owned() };
    let error = pair(b"", b"", PPU).0.feed(&encode(&refused).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "the detector at the other end refused: %1B[2J%0Akey: bad");
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![
        any::<[u8; 16]>().prop_map(|ppu| Role::Control { ppu: PpuId(ppu) }),
        any::<([u8; 16], u16)>()
            .prop_map(|(session, stream)| Role::Data { session: SessionId(session), stream }),
    ]
}

fn from_client() -> impl Strategy<Value = FromClient> {
    let hello = (any::<([u8; 8], u16, u16, String, Nonce)>(), role()).prop_map(|(fields, role)| {
        let (magic, min, max, software, nonce) = fields;
        FromClient::Hello(ClientHello { magic, versions: Versions { min, max }, role, software, nonce })
    });
    prop_oneof![
        hello,
        any::<Proof>().prop_map(|proof| FromClient::Proof { proof }),
        any::<String>().prop_map(|reason| FromClient::Refused { reason }),
    ]
}

fn from_server() -> impl Strategy<Value = FromServer> {
    let hello = any::<([u8; 8], u16, String, [u8; 16], Nonce, Proof)>();
    prop_oneof![
        hello.prop_map(|(magic, version, software, session, nonce, proof)| {
            let session = SessionId(session);
            FromServer::Hello(ServerHello { magic, version, software, session, nonce, proof })
        }),
        Just(FromServer::Welcome),
        any::<String>().prop_map(|reason| FromServer::Refused { reason }),
    ]
}

/// Fed in pieces of the given sizes, byte by byte at the end; never asks for more than the message has.
fn round_trip<M: Message + fmt::Debug + PartialEq>(message: &M, pieces: &[usize]) {
    let frame = encode(message).unwrap();
    let mut decoder = Decoder::new(frame::MAX_FRAME_BYTES);
    let mut rest = &frame[..];
    let mut pieces = pieces.iter();
    while !rest.is_empty() {
        assert_eq!(decoder.next_message::<M>(), Ok(None));
        assert!((1..=rest.len()).contains(&decoder.missing().unwrap()));
        let (piece, after) = rest.split_at((*pieces.next().unwrap_or(&1)).clamp(1, rest.len()));
        decoder.feed(piece);
        rest = after;
    }
    assert_eq!(decoder.missing(), Ok(0));
    assert_eq!(decoder.next_message().unwrap().as_ref(), Some(message));
}

proptest! {
    #[test]
    fn messages_round_trip(client in from_client(), server in from_server(), pieces in vec(1_usize..90, 0..9)) {
        round_trip(&client, &pieces);
        round_trip(&server, &pieces);
    }
}
