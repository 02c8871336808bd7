//! What detectors say of themselves.

use super::*;
use crate::model::attention::{Severity, problems};
use crate::model::offer::Heartbeat;
use crate::model::status::StatusReport;
use crate::model::trouble::{About, Matter, Report, Text};

const MINUTE: Duration = Duration::from_secs(60);

fn report(number: u64, about: &[u8]) -> Report {
    Report {
        life: 1,
        number,
        us_ago: 2_000_000,
        matter: Matter::CannotLand,
        about: About::try_from(about.to_vec()).unwrap(),
        text: Text::cut("the directory cannot be listed: EIO. See dmesg there."),
        lasts: true,
    }
}

impl World {
    fn trouble(&mut self, report: Report) {
        self.tell(Fact::Trouble { detector: DetectorIndex(0), report: Box::new(report) });
    }

    fn beat(&mut self) {
        self.tell(Fact::Beat { detector: DetectorIndex(0), beat: Heartbeat::default() });
    }

    fn status(&self) -> StatusReport {
        self.ledger.report(self.now)
    }

    fn shown(&self) -> Vec<String> {
        self.status().detectors[0].troubles.iter().map(|trouble| trouble.message.short.clone()).collect()
    }
}

#[test]
fn it_is_told_with_the_detectors_name_noted_and_shown_while_it_lasts() {
    let mut world = World::new();
    world.now.wall_ms = 10_000;
    world.trouble(report(3, b"/ramdisk/a:b\n\xff"));
    let long = "Detector 1MF, /ramdisk/a%3Ab%0A%FF: the directory cannot be listed: EIO. See dmesg there.";
    assert_eq!(world.told, [Message::new(Code::LandError, "/ramdisk/a%3Ab%0A%FF", long)]);
    assert_eq!(world.noted, [3]);
    let status = world.status();
    assert_eq!(status.detectors[0].troubles[0].since_ms, 8_000);
    let found = problems(&status);
    assert!(found[0].severity == Severity::Error && found[0].text.contains(long), "{found:?}");
    world.tell(Fact::TroubleOver { detector: DetectorIndex(0), number: 3 });
    assert_eq!(world.shown(), [""; 0]);
    assert_eq!(world.told.len(), 1);
}

#[test]
fn of_a_detector_as_a_whole_its_name_is_the_short_text() {
    let mut world = World::new();
    let text = Text::cut("its clock was set: by +1.0 s. Do this.\x1b[2J\u{202e}");
    world.trouble(Report {
        matter: Matter::Clock,
        text,
        lasts: false,
        us_ago: 7_200_000_000,
        ..report(1, b"")
    });
    let long = "Detector 1MF: its clock was set: by +1.0 s. Do this.%1B[2J%E2%80%AE That began 2 h 00 min before it could be told here.";
    let told: Vec<_> =
        world.told.iter().map(|message| (message.code, &*message.short, &*message.long)).collect();
    assert_eq!(told, [(Code::ClockOffset, "1MF", long)]);
    assert_eq!(world.shown(), [""; 0], "it does not last");
}

#[test]
fn a_broken_link_brings_none_twice_and_what_lasts_is_shown_again() {
    let mut world = World::new();
    world.trouble(report(1, b"/a"));
    world.trouble(report(2, b"/b"));
    world.link(0);
    assert_eq!(world.shown(), [""; 0], "nobody knows yet");
    world.trouble(report(2, b"/b"));
    world.trouble(report(4, b"/c"));
    assert_eq!(world.shown(), ["/b", "/c"]);
    assert_eq!(world.told.len(), 3);
    assert_eq!(world.noted, [1, 2, 2, 4]);
    let (index, reason) = (DetectorIndex(0), "broken".to_owned());
    world.tell(Fact::LinkDown { detector: index, session: Session(2), reason, refused: false });
    assert_eq!(world.shown(), [""; 0], "the link is what is wrong now");
    // Another process of the detector counts anew.
    world.link(0);
    world.told.clear();
    world.trouble(Report { life: 2, ..report(1, b"/b") });
    assert_eq!(world.told.len(), 1);
}

#[test]
fn a_detector_that_complains_without_end_is_summed_up() {
    let mut world = World::new();
    let other = DetectorIndex(1);
    for number in 1..=1000 {
        world.trouble(report(number, format!("/{number}").as_bytes()));
        world.beat();
    }
    assert_eq!(world.told.len(), 100);
    assert_eq!(world.noted.len(), 1000, "it need not be kept there");
    assert!(world.status().detectors[0].troubles.len() <= 101);
    // A new process, or a new session, is no way around.
    world.link(0);
    world.trouble(Report { life: 2, ..report(1, b"/x") });
    assert_eq!(world.told.len(), 100);
    world.tell(Fact::Trouble { detector: other, report: Box::new(report(1, b"/y")) });
    assert_eq!(world.told.len(), 101, "the other detector is heard");
    world.now.at += MINUTE;
    world.beat();
    world.beat();
    assert_eq!(world.told.len(), 102);
    assert!(world.told[101].long.contains("901 more troubles"), "{:?}", world.told[101]);
    let found = problems(&world.status());
    assert!(found.len() < 10, "{found:?}");
}
