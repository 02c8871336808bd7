//! Starts the detector's stream threads.

use std::rc::Rc;

use ppu_uring::{Choice, open_engine};

use crate::host::priority::Priority;
use crate::model::path::RelPath;
use crate::send::session::{Heard, StartStream};
use crate::send::settle::Settling;
use crate::send::stream::{self, LIMITS};
use crate::watch::Ramdisk;

/// For a session's data connections: each gets a thread with a driver of its own.
pub(super) fn starter(ramdisk: Ramdisk, choice: Choice) -> StartStream {
    Rc::new(move |_, connection, jobs, outlet| {
        let ramdisk = ramdisk.clone();
        std::thread::Builder::new().name("send".to_owned()).spawn(move || {
            Priority::Usual.take();
            let reports = outlet.clone();
            // That the session is over is no news to its streams.
            let mut report = |ended| drop(reports.send(Heard::Reports(ended)));
            let open = |path: &RelPath| {
                let (file, _) = ramdisk.root().open_file(path).map_err(|error| error.errno)?;
                Ok(file)
            };
            let ended = match open_engine(choice, LIMITS) {
                Err(error) => error.to_string(),
                Ok(mut opened) => {
                    let settings = stream::Settings {
                        connection,
                        jobs: &jobs,
                        open: &open,
                        settling: settling(&ramdisk),
                        report: &mut report,
                    };
                    match stream::run(settings, opened.driver.as_mut()) {
                        Ok(()) => "no more jobs".to_owned(),
                        Err(error) => error.to_string(),
                    }
                }
            };
            let _ = outlet.send(Heard::Ended(ended));
        })?;
        Ok(())
    })
}

fn settling(ramdisk: &Ramdisk) -> Settling {
    match ramdisk.root().open_dir(None) {
        Ok(directory) => Settling::probe(directory),
        Err(_) => Settling::AfterTick,
    }
}
