//! Between the catalog, which says what may leave the detector's ramdisk, and the thread that takes it away.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::model::release::{Policy, Report};
use crate::model::trouble::{Trouble, What};
use crate::send::release::Releaser;
use crate::send::session::Desk;
use crate::watch::Ramdisk;

/// How often the ramdisk's fill is looked at while something could be released.
const LOOK: Duration = Duration::from_millis(100);

/// Runs until it is aborted.
pub(super) fn start(policy: Policy, desk: Rc<Desk>, ramdisk: Ramdisk) -> io::Result<JoinHandle<()>> {
    let (outlet, reports) = mpsc::unbounded_channel();
    let root = ramdisk.clone();
    // That nobody listens any more is the end of the daemon.
    let releaser = Releaser::start(move || root.root(), move |report| drop(outlet.send(report)))?;
    Ok(tokio::task::spawn_local(run(policy, desk, ramdisk, releaser, reports)))
}

async fn run(
    policy: Policy,
    desk: Rc<Desk>,
    ramdisk: Ramdisk,
    releaser: Releaser,
    mut reports: mpsc::UnboundedReceiver<Report>,
) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let busy = {
            let mut catalog = desk.catalog.borrow_mut();
            if catalog.has_releasable() {
                match ramdisk.root().space() {
                    Ok(space) => {
                        catalog.over(What::FillUnknown);
                        catalog.release(Instant::now(), policy.excess(space.bytes_total, space.bytes_free));
                    }
                    Err(error) => {
                        catalog.met(Instant::now(), Trouble::new(What::FillUnknown, error.to_string()));
                    }
                }
            }
            while let Some(order) = catalog.next_release() {
                releaser.order(order);
            }
            catalog.has_releasable() || catalog.is_releasing()
        };
        tokio::select! {
            report = reports.recv() => {
                let Some(mut report) = report else {
                    desk.catalog.borrow_mut().met(Instant::now(), Trouble::new(What::ReleaseEnded, ""));
                    return desk.news.notify_one();
                };
                let mut catalog = desk.catalog.borrow_mut();
                loop {
                    catalog.release_report(Instant::now(), report);
                    match reports.try_recv() {
                        Ok(next) => report = next,
                        Err(_) => break,
                    }
                }
                desk.news.notify_one();
            }
            () = desk.safer.notified() => {}
            _ = look.tick(), if busy => desk.catalog.borrow_mut().tick(Instant::now()),
        }
    }
}
