//! What people are told: numbered, kept, and passed on to whoever listens. Owned by the hub.

use crate::model::ledger::Now;
use crate::model::message::{Code, Message};
use crate::model::status::Told;
use crate::model::teller::{Said, Teller};
use crate::serve::control::{Answer, Response};
use crate::serve::feed::{Feed, Reader};

/// Messages that are kept; the journal keeps as many.
const KEPT: usize = 1000;
/// Messages in one line of an answer.
const PAGE: usize = 100;
/// Each start begins with a number that can be divided by this, so that a number which went with a crash, untold to the journal, is
/// not given twice.
const NUMBERS_PER_START: u64 = 1000;

/// See the module.
pub(super) struct Bulletin {
    teller: Teller,
    kept: Feed<Told>,
    next_number: u64,
    followers: Vec<Follower>,
}

/// A client that wants to hear what is to come.
struct Follower {
    answer: Answer,
    codes: Vec<Code>,
}

/// What a client wants to hear.
#[derive(Debug)]
pub(super) struct Wish {
    /// Nothing up to this number.
    pub(super) since: u64,
    /// Nothing else; empty: all.
    pub(super) codes: Vec<Code>,
    /// What is to come, too.
    pub(super) follow: bool,
}

impl Bulletin {
    /// With what the journal has kept.
    pub(super) fn new(kept: Vec<Told>) -> Self {
        let last = kept.last().map_or(0, |told| told.number);
        let next_number = (last / NUMBERS_PER_START + 1).saturating_mul(NUMBERS_PER_START);
        // A journal that is not full has not forgotten any.
        let first = kept.first().filter(|_| kept.len() >= KEPT).map_or(1, |told| told.number);
        let kept = kept.into_iter().map(|told| (told.number, told)).collect();
        let kept = Feed::new(KEPT, first.saturating_sub(1), kept, last);
        Self { teller: Teller::default(), kept, next_number, followers: Vec::new() }
    }

    /// Another reader of what is told, from what is kept on.
    pub(super) fn reader(&self) -> Reader<Told> {
        self.kept.reader()
    }

    /// A message is raised; returns what is told now, for the journal.
    pub(super) fn raise(&mut self, now: Now, message: Message) -> Vec<Told> {
        tracing::debug!(code = %message.code, short = message.short, "raised: {}", message.long);
        let mut said = Vec::new();
        self.teller.raise(now.at, message, &mut said);
        self.tell(now, said)
    }

    /// Time has passed; likewise.
    pub(super) fn pass(&mut self, now: Now) -> Vec<Told> {
        let mut said = Vec::new();
        self.teller.pass(now.at, &mut said);
        self.tell(now, said)
    }

    /// The end: what was only counted so far is told.
    pub(super) fn rest(&mut self, now: Now) -> Vec<Told> {
        let mut said = Vec::new();
        self.teller.rest(&mut said);
        self.tell(now, said)
    }

    /// The newest `count`, oldest first.
    pub(super) fn last(&self, count: usize) -> Vec<Told> {
        self.kept.newest(count)
    }

    /// Answers with what was kept, and keeps those who want to hear more.
    pub(super) fn answer(&mut self, wish: Wish, answer: Answer) {
        let Wish { since, codes, follow } = wish;
        let wanted = |told: &Told| told.number > since && is_wanted(&codes, told);
        let kept: Vec<Told> = self.kept.newest(KEPT).into_iter().filter(wanted).collect();
        let last = self.last_number();
        let pages: Vec<_> = kept.chunks(PAGE).collect();
        let (end, pages) = match pages.split_last() {
            Some((end, pages)) => (end.to_vec(), pages),
            None => (Vec::new(), &[][..]),
        };
        if !pages.iter().all(|page| answer.say(Response::Messages { last, messages: page.to_vec() })) {
            return;
        }
        let end = Response::Messages { last, messages: end };
        if !follow {
            // The client may have left.
            let _ = answer.send(end);
        } else if answer.say(end) {
            self.followers.retain(|follower| !follower.answer.is_abandoned());
            self.followers.push(Follower { answer, codes });
        }
    }

    fn tell(&mut self, now: Now, said: Vec<Said>) -> Vec<Told> {
        let number = |Said { message, count }| {
            tracing::warn!(code = %message.code, short = message.short, "{}", message.long);
            let told = Told { number: self.next_number, count, at_ms: now.wall_ms, message };
            self.next_number += 1;
            told
        };
        let told: Vec<Told> = said.into_iter().map(number).collect();
        if told.is_empty() {
            return told;
        }
        self.kept.publish(told.iter().map(|told| (told.number, told.clone())));
        let last = self.last_number();
        self.followers.retain(|Follower { answer, codes }| {
            let messages: Vec<Told> = told.iter().filter(|told| is_wanted(codes, told)).cloned().collect();
            if messages.is_empty() {
                !answer.is_abandoned()
            } else {
                answer.say(Response::Messages { last, messages })
            }
        });
        told
    }

    fn last_number(&self) -> u64 {
        self.next_number - 1
    }
}

fn is_wanted(codes: &[Code], told: &Told) -> bool {
    codes.is_empty() || codes.contains(&told.message.code)
}
