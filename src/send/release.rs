//! The thread that takes released files off the detector's ramdisk (SPEC 1.10). What may go, and when, is the catalog's to say.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use crate::host::priority::Priority;
use crate::model::file_version::Identity;
use crate::model::path::RelPath;
use crate::model::release::{Order, Outcome, Report};
use crate::rooted::{NotTaken, OutOfSight, Root, RootError, Staging, TakeError, Taker};

/// Takers that are kept for the next files.
const IDLE_MAX: usize = 16;

/// The running thread. Dropped, it gives every file that is not yet deleted its name back, and ends.
pub struct Releaser {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Releaser {
    /// Begins. `root` is asked before every take: the ramdisk may be mounted anew.
    ///
    /// # Errors
    /// No thread.
    pub fn start(
        root: impl Fn() -> Arc<Root> + Send + 'static,
        report: impl Fn(Report) + Send + 'static,
    ) -> io::Result<Self> {
        let (orders, received) = channel();
        let worker = Worker { root, report, staging: None, idle: Vec::new(), taken: HashMap::new() };
        let thread =
            thread::Builder::new().name("release".to_owned()).spawn(move || worker.run(&received))?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    /// To be carried out; a report follows.
    pub fn order(&self, order: Order) {
        if let Some(orders) = &self.orders
            && orders.send(order).is_err()
        {
            tracing::error!("the thread that releases has ended");
        }
    }
}

impl Drop for Releaser {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that releases has panicked");
        }
    }
}

struct Worker<R, T> {
    root: R,
    report: T,
    staging: Option<Arc<Staging>>,
    idle: Vec<Taker>,
    taken: HashMap<RelPath, OutOfSight>,
}

impl<R: Fn() -> Arc<Root>, T: Fn(Report)> Worker<R, T> {
    fn run(mut self, orders: &Receiver<Order>) {
        Priority::Usual.take();
        while let Ok(order) = orders.recv() {
            let (path, outcome) = match order {
                Order::Take { path, identity } => (path.clone(), self.take(path, identity)),
                Order::Delete { path } => {
                    let outcome = self.delete(&path);
                    (path, outcome)
                }
                Order::PutBack { path } => {
                    let outcome = self.put_back(&path);
                    (path, outcome)
                }
            };
            (self.report)(Report { path, outcome });
        }
        for (path, taken) in self.taken.drain() {
            if let Err(error) = taken.put_back() {
                tracing::error!(%path, "{error}");
            }
        }
    }

    fn take(&mut self, path: RelPath, identity: Identity) -> Outcome {
        let taker = match self.taker() {
            Ok(taker) => taker,
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        match taker.hold(path.clone(), identity) {
            Ok(taken) => {
                let token = taken.name().as_bytes().into();
                self.taken.insert(path, taken);
                Outcome::Taken { token }
            }
            Err(NotTaken { why, back, taker }) => {
                // A name in staging that the watch may have told of is not used a second time.
                self.keep(taker.map(|taker| *taker));
                match why {
                    TakeError::Kept(_) => Outcome::Kept(why.to_string()),
                    _ if back => Outcome::Back,
                    TakeError::Failed(error) => Outcome::Failed(error.to_string()),
                    TakeError::Missing | TakeError::Changed | TakeError::Busy => {
                        Outcome::Left(why.to_string())
                    }
                }
            }
        }
    }

    fn delete(&mut self, path: &RelPath) -> Outcome {
        let Some(taken) = self.taken.remove(path) else { return nothing_taken() };
        match taken.delete() {
            Ok(taker) => {
                self.keep(Some(taker));
                Outcome::Deleted
            }
            Err(error @ TakeError::Kept(_)) => Outcome::Kept(error.to_string()),
            Err(error @ TakeError::Failed(_)) => Outcome::Kept(error.to_string()),
            Err(_) => Outcome::Back,
        }
    }

    fn put_back(&mut self, path: &RelPath) -> Outcome {
        let Some(taken) = self.taken.remove(path) else { return nothing_taken() };
        match taken.put_back() {
            Ok(_) => Outcome::Back,
            Err(error) => Outcome::Kept(error.to_string()),
        }
    }

    fn taker(&mut self) -> Result<Taker, RootError> {
        let root = (self.root)();
        let staging = match &self.staging {
            Some(staging) if Arc::ptr_eq(staging.root(), &root) => Arc::clone(staging),
            _ => {
                self.idle.clear();
                Arc::clone(self.staging.insert(Arc::new(Staging::open(root)?)))
            }
        };
        match self.idle.pop() {
            Some(taker) => Ok(taker),
            None => Taker::without_links(staging),
        }
    }

    fn keep(&mut self, taker: Option<Taker>) {
        let Some(taker) = taker else { return };
        let current = self.staging.as_ref().is_some_and(|staging| Arc::ptr_eq(staging.root(), taker.root()));
        if current && self.idle.len() < IDLE_MAX {
            self.idle.push(taker);
        }
    }
}

/// Of an order that follows no take, which the catalog never gives.
fn nothing_taken() -> Outcome {
    Outcome::Left("it was not taken".to_owned())
}
