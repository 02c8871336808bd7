//! A keeper's thread: looks at its file system continually, and lets go what may leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, Thread};
use std::time::Duration;

use super::Shown;
use super::ground::Ground;
use super::leaver::{Leaver, Leaving};
use crate::host::priority::Priority;
use crate::model::message::Message;
use crate::model::pressure::{Level, Marks, Pressure};
use crate::model::status::Room;

/// How often the fill state is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// The same for a storage, which has to be opened for it.
const LOOK_AT_STORAGE: Duration = Duration::from_millis(500);

/// What a keeper works with.
pub struct Settings {
    /// Of the thread and in the log: `ramdisk`, or a storage's id.
    pub id: String,
    /// The mount point, for messages.
    pub name: String,
    /// The file system.
    pub ground: Ground,
    /// When it is too full.
    pub marks: Marks,
    /// What leaves it; `None`: it is watched only.
    pub leaving: Option<Leaving>,
    /// For the status.
    pub shown: Arc<Shown>,
    /// Takes messages for people.
    pub tell: Told,
    /// Is told at every look that it is there, or why not, for people.
    pub seen: Seen,
}

/// See [`Settings::tell`].
pub type Told = Box<dyn Fn(Message) + Send>;

/// See [`Settings::seen`].
pub type Seen = Box<dyn Fn(Option<String>) + Send>;

/// The running thread.
pub struct Keeper {
    id: String,
    thread: Thread,
    stop: Arc<AtomicBool>,
    ended: Receiver<()>,
}

impl Keeper {
    /// Starts it.
    ///
    /// # Errors
    /// No thread.
    pub fn start(settings: Settings) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (end, ended) = channel();
        let id = settings.id.clone();
        let mut work = Work::new(settings, Arc::clone(&stop));
        let thread = thread::Builder::new().name(format!("keep {id}")).spawn(move || {
            // Dropped when this thread ends, however it does.
            let _end: Sender<()> = end;
            Priority::Background.take();
            work.run();
        })?;
        Ok(Self { id, thread: thread.thread().clone(), stop, ended })
    }

    /// It is to end, after the file that it has in hand.
    pub fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }

    /// Waits for its end. False: its file system hangs, and the thread is left to itself.
    pub fn stop(self, at_most: Duration) -> bool {
        self.ask_to_stop();
        let ended = matches!(self.ended.recv_timeout(at_most), Err(RecvTimeoutError::Disconnected));
        if !ended {
            tracing::warn!(keeper = self.id, "a file system hangs; leaving it");
        }
        ended
    }
}

struct Work {
    ground: Ground,
    pressure: Pressure,
    leaver: Option<Leaver>,
    shown: Arc<Shown>,
    tell: Told,
    seen: Seen,
    stop: Arc<AtomicBool>,
    pause: Duration,
}

impl Work {
    fn new(settings: Settings, stop: Arc<AtomicBool>) -> Self {
        let Settings { id, name, ground, marks, leaving, shown, tell, seen } = settings;
        let pause = if ground.is_storage() { LOOK_AT_STORAGE } else { LOOK };
        let pressure = Pressure::new(name, marks, leaving.is_some());
        let leaver = leaving.map(|leaving| Leaver::new(id, leaving, Arc::clone(&shown), Arc::clone(&stop)));
        Self { ground, pressure, leaver, shown, tell, seen, stop, pause }
    }

    fn run(&mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let wanted = self.look();
            let more = match &mut self.leaver {
                Some(leaver) => {
                    leaver.work(&mut self.ground, (wanted, self.pressure.is_urgent()), &self.tell)
                }
                None => false,
            };
            if !more {
                self.ground.let_go();
                thread::park_timeout(self.pause);
            }
        }
    }

    /// Tells what there is to tell of the fill state. How many bytes are to leave; `None`: it cannot be looked at.
    fn look(&mut self) -> Option<u64> {
        let space = match self.ground.space() {
            Ok(space) => space,
            Err(reason) => {
                (self.seen)(Some(reason));
                self.shown.change(|kept| kept.room = Room::default());
                return None;
            }
        };
        (self.seen)(None);
        let held = self.leaver.as_mut().map_or(0, Leaver::held_bytes);
        let needed = self.leaver.as_ref().map_or(0, |leaver| leaver.room_needed(self.ground.home()));
        let level = Level { total: space.bytes_total, free: space.bytes_free, held, needed };
        let mut messages = Vec::new();
        let wanted = self.pressure.look(level, &mut messages);
        messages.into_iter().for_each(&self.tell);
        let evicting = self.pressure.is_evicting() || wanted > 0;
        self.shown.change(|kept| {
            kept.room = Room { total_bytes: level.total, free_bytes: level.free };
            kept.left.evicting = evicting;
        });
        Some(wanted)
    }
}
