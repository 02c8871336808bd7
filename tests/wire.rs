//! Detector and PPU through a simulated link, for every message: whatever the link does to the bytes, nobody panics,
//! nobody is believed who does not know the key, and an honest link delivers everything in order.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helpers")]

use std::collections::VecDeque;

use ppu_uringd::model::file_version::{Hash, Identity, OfferId, TransferId};
use ppu_uringd::model::path::RelPath;
use ppu_uringd::model::shift::{Began, ShiftId};
use ppu_uringd::model::trouble::{ABOUT_MAX_BYTES, About, Matter, TEXT_MAX_BYTES, Text};
use ppu_uringd::wire::control::{
    Coming, Decline, FromDetector, FromPpu, Heartbeat, Offered, Report, Wanted, Withdrawal,
};
use ppu_uringd::wire::frame::{Decoder, MAX_FRAME_BYTES, Message, encode};
use ppu_uringd::wire::handshake::{
    Caller, Client, Established, HandshakeError, Key, PpuId, Role, Server, SessionId,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// What a link does to one chunk.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Deliver,
    Drop,
    Duplicate,
    /// It arrives after the next one.
    Overtaken,
    /// One bit of it, counted modulo its length.
    Flip(usize),
    /// Only so many bytes of it.
    Truncate(usize),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Deliver),
        1 => Just(Fate::Drop),
        1 => Just(Fate::Duplicate),
        1 => Just(Fate::Overtaken),
        2 => any::<usize>().prop_map(Fate::Flip),
        1 => any::<usize>().prop_map(Fate::Truncate),
    ]
}

/// Cuts into chunks of the given sizes, each with its fate; beyond the list everything is delivered whole.
struct Link {
    plan: VecDeque<(usize, Fate)>,
    honest: bool,
}

impl Link {
    fn new(plan: Vec<(usize, Fate)>) -> Self {
        Self { plan: plan.into(), honest: true }
    }

    fn carry(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut arrived = Vec::new();
        let mut overtaken = None;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (size, fate) = self.plan.pop_front().unwrap_or((rest.len(), Fate::Deliver));
            let (chunk, after) = rest.split_at(size.clamp(1, rest.len()));
            rest = after;
            let mut chunk = chunk.to_vec();
            let waiting = overtaken.take();
            self.honest &= matches!(fate, Fate::Deliver);
            match fate {
                Fate::Deliver => arrived.push(chunk),
                Fate::Drop => {}
                Fate::Duplicate => arrived.extend([chunk.clone(), chunk]),
                Fate::Overtaken => overtaken = Some(chunk),
                Fate::Flip(bit) => {
                    let bit = bit % (chunk.len() * 8);
                    chunk[bit / 8] ^= 1 << (bit % 8);
                    arrived.push(chunk);
                }
                Fate::Truncate(length) => {
                    chunk.truncate(length % chunk.len());
                    arrived.push(chunk);
                }
            }
            arrived.extend(waiting);
        }
        arrived.extend(overtaken);
        arrived
    }
}

const SESSION: SessionId = SessionId([2; 16]);

/// How a handshake ended for each side; `None`: it still waits.
#[derive(Debug, Default)]
struct Outcome {
    client: Option<Result<Established, HandshakeError>>,
    server: Option<Result<Caller, HandshakeError>>,
    honest: bool,
}

fn greet(client_key: &[u8], server_key: &[u8], role: Role, plan: Vec<(usize, Fate)>) -> Outcome {
    let mut link = Link::new(plan);
    let mut outcome = Outcome::default();
    let mut client = Client::new(&Key::new(client_key), role, [1; 32]).unwrap();
    let mut server = Some(Server::new(&Key::new(server_key), SESSION, [3; 32]));
    let mut to_client = Vec::new();
    loop {
        let to_server = client.take_output();
        if to_server.is_empty() && to_client.is_empty() {
            return Outcome { honest: link.honest, ..outcome };
        }
        for chunk in link.carry(&to_server) {
            let Some(listening) = &mut server else { break };
            match listening.feed(&chunk).transpose() {
                None => {}
                Some(Ok(caller)) => {
                    assert!(outcome.server.is_none(), "decided once");
                    to_client.extend(listening.take_output());
                    to_client.extend(server.take().unwrap().welcome().unwrap().0);
                    outcome.server = Some(Ok(caller));
                }
                Some(Err(error)) => _ = outcome.server.get_or_insert(Err(error)),
            }
        }
        to_client.extend(server.as_mut().map(Server::take_output).unwrap_or_default());
        for chunk in link.carry(&std::mem::take(&mut to_client)) {
            // As a driver does: what follows a welcome is no longer the handshake's.
            if let Some(Ok(_)) = outcome.client {
                break;
            }
            match client.feed(&chunk).transpose() {
                None => {}
                Some(Ok(established)) => {
                    assert!(outcome.client.is_none(), "no way back from an error");
                    outcome.client = Some(Ok(established));
                }
                Some(Err(error)) => _ = outcome.client.get_or_insert(Err(error)),
            }
        }
    }
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![
        any::<[u8; 16]>().prop_map(|ppu| Role::Control { ppu: PpuId(ppu) }),
        any::<([u8; 16], u16)>()
            .prop_map(|(session, stream)| Role::Data { session: SessionId(session), stream }),
    ]
}

fn identity() -> impl Strategy<Value = Identity> {
    any::<(u64, i64, u64, i64)>().prop_map(|(size, mtime_ns, ino, ctime_ns)| Identity {
        size,
        mtime_ns,
        ino,
        ctime_ns,
    })
}

fn path() -> impl Strategy<Value = RelPath> {
    let name = vec(any::<u8>(), 1..=255).prop_map(|mut name| {
        name.iter_mut().filter(|byte| matches!(byte, 0 | b'/' | b'.')).for_each(|byte| *byte = b'_');
        name
    });
    vec(name, 1..=15).prop_map(|names| RelPath::new(&names.join(&b'/')).unwrap())
}

fn offers() -> impl Strategy<Value = Vec<OfferId>> {
    vec(any::<u64>().prop_map(OfferId), 0..50)
}

fn offered() -> impl Strategy<Value = Offered> {
    (any::<(u64, i64, u64, bool, u32)>(), path(), identity()).prop_map(|(fields, path, identity)| {
        let (offer, shift, closed_us_ago, fresh, superseded) = fields;
        let (offer, shift) = (OfferId(offer), ShiftId(shift));
        Offered { offer, path, identity, shift, closed_us_ago, fresh, superseded }
    })
}

fn withdrawal() -> impl Strategy<Value = Withdrawal> {
    use Withdrawal::{Moved, Reopened, Replaced, Vanished};
    prop_oneof![Just(Vanished), Just(Moved), Just(Reopened), Just(Replaced)]
}

fn decline() -> impl Strategy<Value = Decline> {
    prop_oneof![
        (identity(), any::<bool>()).prop_map(|(identity, settled)| Decline::Unchanged { identity, settled }),
        Just(Decline::Busy),
        Just(Decline::Vanished),
        Just(Decline::Changed),
        any::<String>().prop_map(Decline::Failed),
    ]
}

fn report() -> impl Strategy<Value = Report> {
    use Matter::{CannotLand, CannotRemove, Clock, Lost, State};
    let matter = prop_oneof![Just(CannotLand), Just(CannotRemove), Just(Lost), Just(State), Just(Clock)];
    let about = vec(any::<u8>(), 0..=ABOUT_MAX_BYTES);
    (any::<(u64, u64, u64, bool)>(), matter, about, vec(any::<char>(), 0..=TEXT_MAX_BYTES)).prop_map(
        |((life, number, us_ago, lasts), matter, about, text)| {
            let (about, text) = (About::try_from(about).unwrap(), Text::cut(&String::from_iter(text)));
            Report { life, number, us_ago, matter, about, text, lasts }
        },
    )
}

fn from_detector() -> impl Strategy<Value = FromDetector> {
    let heartbeat = any::<(u64, u64, u64, u64, u64, (u64, u64))>().prop_map(|fields| {
        let (backlog_files, backlog_bytes, skipped, ramdisk_total, ramdisk_free, released) = fields;
        let (released_files, released_bytes) = released;
        Heartbeat {
            backlog_files,
            backlog_bytes,
            skipped,
            ramdisk_total,
            ramdisk_free,
            released_files,
            released_bytes,
        }
    });
    prop_oneof![
        heartbeat.prop_map(FromDetector::Heartbeat),
        Just(FromDetector::ManifestBegin),
        Just(FromDetector::ManifestEnd),
        vec(offered(), 0..12).prop_map(|files| FromDetector::Offer { files }),
        (any::<u64>(), withdrawal())
            .prop_map(|(offer, why)| FromDetector::Withdrawn { offer: OfferId(offer), why }),
        (any::<u64>(), decline())
            .prop_map(|(transfer, why)| FromDetector::Declined { transfer: TransferId(transfer), why }),
        offers().prop_map(|offers| FromDetector::Gone { offers }),
        any::<i64>().prop_map(|shift| FromDetector::ShiftWord { shift: ShiftId(shift) }),
        any::<(i64, i64, i64)>().prop_map(|(sent_ns, received_ns, replied_ns)| {
            FromDetector::ClockReply { sent_ns, received_ns, replied_ns }
        }),
        any::<String>().prop_map(|reason| FromDetector::Goodbye { reason }),
        report().prop_map(FromDetector::Trouble),
        any::<u64>().prop_map(|number| FromDetector::TroubleOver { number }),
        vec((any::<u64>(), any::<u64>(), offered()), 0..12).prop_map(|files| {
            let coming = |(transfer, shifts_heard, file)| Coming {
                transfer: TransferId(transfer),
                shifts_heard,
                file,
            };
            FromDetector::Coming { files: files.into_iter().map(coming).collect() }
        }),
    ]
}

fn wanted() -> impl Strategy<Value = Wanted> {
    any::<(u64, u64, Option<[u8; 16]>)>().prop_map(|(transfer, offer, hash)| Wanted {
        transfer: TransferId(transfer),
        offer: OfferId(offer),
        known_hash: hash.map(Hash),
    })
}

fn began() -> impl Strategy<Value = Began> {
    prop_oneof![Just(Began::Ever), Just(Began::Now), any::<u64>().prop_map(|us| Began::Ago { us })]
}

fn from_ppu() -> impl Strategy<Value = FromPpu> {
    prop_oneof![
        Just(FromPpu::Heartbeat),
        (any::<i64>(), option::of(path()), began(), any::<bool>()).prop_map(
            |(shift, source, began, more)| {
                FromPpu::ShiftBegan { shift: ShiftId(shift), source, began, more }
            }
        ),
        vec(wanted(), 0..50).prop_map(|wants| FromPpu::Want { wants }),
        offers().prop_map(|offers| FromPpu::Have { offers }),
        offers().prop_map(|offers| FromPpu::Landed { offers }),
        offers().prop_map(|offers| FromPpu::Stored { offers }),
        any::<i64>().prop_map(|sent_ns| FromPpu::ClockProbe { sent_ns }),
        any::<String>().prop_map(|reason| FromPpu::Goodbye { reason }),
        offers().prop_map(|offers| FromPpu::Fell { offers }),
        any::<u64>().prop_map(|number| FromPpu::Noted { number }),
        any::<u64>().prop_map(|transfer| FromPpu::NotTaken { transfer: TransferId(transfer) }),
        (vec(any::<u64>(), 0..20), any::<u64>()).prop_map(|(transfers, max_bytes)| FromPpu::Grant {
            transfers: transfers.into_iter().map(TransferId).collect(),
            max_bytes
        }),
    ]
}

/// Everything that arrives before the first error.
fn arrivals<M: Message>(messages: &[M], link: &mut Link) -> Vec<M> {
    let sent: Vec<u8> = messages.iter().flat_map(|message| encode(message).unwrap()).collect();
    let mut decoder = Decoder::new(MAX_FRAME_BYTES);
    let mut arrived = Vec::new();
    for chunk in link.carry(&sent) {
        decoder.feed(&chunk);
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => arrived.push(message),
                Ok(None) => break,
                Err(_) => return arrived,
            }
        }
    }
    arrived
}

proptest! {
    #[test]
    fn an_honest_link_lets_in_who_knows_the_key(
        role in role(),
        sizes in vec(1_usize..60, 0..40),
        key in vec(any::<u8>(), 0..100),
    ) {
        let plan = sizes.into_iter().map(|size| (size, Fate::Deliver)).collect();
        let outcome = greet(&key, &key, role, plan);
        prop_assert_eq!(outcome.server.unwrap().unwrap().role, role);
        let session = match role {
            Role::Control { .. } => SESSION,
            Role::Data { session, .. } => session,
        };
        prop_assert_eq!(outcome.client.unwrap().unwrap().session, session);
    }

    #[test]
    fn a_hostile_link_makes_nobody_believe_what_was_not_said(
        role in role(),
        plan in vec((1_usize..60, fate()), 0..30),
    ) {
        let truth = greet(b"key", b"key", role, vec![]);
        let outcome = greet(b"key", b"key", role, plan);
        if let Some(Ok(caller)) = outcome.server {
            prop_assert_eq!(caller, truth.server.unwrap().unwrap());
        }
        if let Some(Ok(established)) = outcome.client {
            prop_assert_eq!(established, truth.client.unwrap().unwrap());
        }
    }

    #[test]
    fn no_link_lets_in_who_does_not_know_the_key(
        role in role(),
        plan in vec((1_usize..60, fate()), 0..30),
    ) {
        let outcome = greet(b"key", b"kez", role, plan);
        prop_assert!(!matches!(outcome.server, Some(Ok(_))), "{:?}", outcome);
        prop_assert!(!matches!(outcome.client, Some(Ok(_))), "{:?}", outcome);
        prop_assert!(!outcome.honest || outcome.client == Some(Err(HandshakeError::KeyDiffers)));
    }

    #[test]
    fn messages_arrive_as_sent(
        detector in vec(from_detector(), 0..8),
        ppu in vec(from_ppu(), 0..8),
        sizes in vec(1_usize..5000, 0..40),
    ) {
        let mut link = Link::new(sizes.into_iter().map(|size| (size, Fate::Deliver)).collect());
        prop_assert_eq!(arrivals(&detector, &mut link), detector);
        prop_assert_eq!(arrivals(&ppu, &mut link), ppu);
    }

    #[test]
    fn damaged_messages_end_in_an_error_or_in_other_messages_but_never_in_a_panic(
        detector in vec(from_detector(), 1..6),
        ppu in vec(from_ppu(), 1..6),
        plan in vec((1_usize..200, fate()), 1..40),
    ) {
        let mut link = Link::new(plan);
        for message in arrivals(&detector, &mut link) {
            prop_assert!(encode(&message).is_ok());
        }
        for message in arrivals(&ppu, &mut link) {
            prop_assert!(encode(&message).is_ok());
        }
    }
}
