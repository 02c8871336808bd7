//! `shift start`: what is asked for, what the configuration says of the rest, and the shift that comes of it (SPEC 2.1).

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::path::{PathError, RelPath};
use super::replica_path::Target;
use super::shift::{Place, Shift, ShiftId};

/// Largest user or group number: the one above it means "leave as it is" to chown(2).
const ID_MAX: u32 = u32::MAX - 1;
/// What no target may be below: this program's own.
const STAGING: &[u8] = b".ppu-uringd";

/// Whose files they are: `UID:GID`, or `ID` for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Never 0.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// `ID:SOURCE:TARGET` of one detector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceRequest {
    /// The detector's `id`.
    pub detector: String,
    /// Below its ramdisk; `/` or nothing = all of it.
    pub source: String,
    /// Absolute, below the PPU's ramdisk, with its `/./` if it has one.
    pub target: String,
}

/// What is left out comes from the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ShiftRequest {
    /// Of some of the detectors.
    pub places: Vec<PlaceRequest>,
    /// The files' owner.
    pub owner: Option<Owner>,
}

/// What the configuration says.
#[derive(Debug, Clone)]
pub struct ShiftDefaults {
    /// Where the PPU's ramdisk is, as bytes.
    pub ramdisk: Vec<u8>,
    /// The files' owner.
    pub owner: Owner,
    /// Below every target; not yet filled in.
    pub user_dir: String,
    /// Of every configured detector.
    pub places: Vec<Place>,
}

/// Why a shift is not begun; for people, with what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShiftError {
    /// No such detector.
    #[error("there is no detector {id:?}: the configuration has {known}")]
    UnknownDetector {
        /// As asked for.
        id: String,
        /// All of them.
        known: String,
    },
    /// Two places for one detector.
    #[error("detector {0} is given twice, give each one place")]
    Twice(String),
    /// A source that is none.
    #[error(
        "detector {id}: source {source_:?}: {reason}; write a plain path below the detector's ramdisk, \"/\" for all of it"
    )]
    Source {
        /// Whose.
        id: String,
        /// As asked for.
        source_: String,
        /// Why.
        reason: PathError,
    },
    /// A target that is none.
    #[error("detector {id}: target {target:?} {reason}; write a path such as {ramdisk}/./{id}")]
    Target {
        /// Whose.
        id: String,
        /// As asked for.
        target: String,
        /// Why.
        reason: String,
        /// As configured.
        ramdisk: String,
    },
    /// Two detectors in one directory.
    #[error(
        "detector {id}: its target and detector {other}'s are the same or inside each other; give each detector a directory of its own with \
         -d ID:SOURCE:TARGET"
    )]
    Overlap {
        /// Whose.
        id: String,
        /// And whose.
        other: String,
    },
    /// Not a user.
    #[error("{0}")]
    Owner(#[from] OwnerError),
    /// It cannot be filled in.
    #[error("user_dir {0:?} of the configuration: {1}")]
    UserDir(String, PathError),
}

/// Why something is no `UID:GID`; with what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// Not two numbers.
    #[error("user {0:?} is not UID:GID; write two numbers such as 500:501, or one for both")]
    Malformed(String),
    /// Root.
    #[error("uid 0 is root: images of a user shift never belong to root, write the user's number")]
    Root,
    /// `chown` takes it for "as it is".
    #[error("user and group numbers go up to {ID_MAX}")]
    TooLarge,
}

/// Why something is no `ID:SOURCE:TARGET`; with what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not ID:SOURCE:TARGET; write for example 1MF:/:/ramdisk/./1mf")]
pub struct PlaceRequestError(String);

impl FromStr for Owner {
    type Err = OwnerError;
    fn from_str(text: &str) -> Result<Self, OwnerError> {
        let number =
            |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.is_empty() {
                true => digits.parse::<u32>().map_err(|_| OwnerError::TooLarge),
                false => Err(OwnerError::Malformed(text.to_owned())),
            };
        let owner = match text.split_once(':') {
            Some((uid, gid)) => Self { uid: number(uid)?, gid: number(gid)? },
            None => Self { uid: number(text)?, gid: number(text)? },
        };
        owner.check()
    }
}

impl Owner {
    /// Whether files of a shift may belong to it.
    ///
    /// # Errors
    /// [`OwnerError`].
    pub fn check(self) -> Result<Self, OwnerError> {
        match self {
            Self { uid: 0, .. } => Err(OwnerError::Root),
            Self { uid, gid } if uid > ID_MAX || gid > ID_MAX => Err(OwnerError::TooLarge),
            owner => Ok(owner),
        }
    }
}

impl FromStr for PlaceRequest {
    type Err = PlaceRequestError;
    fn from_str(text: &str) -> Result<Self, PlaceRequestError> {
        let mut parts = text.splitn(3, ':').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(detector), Some(source), Some(target)) if !detector.is_empty() && !target.is_empty() => {
                Ok(Self { detector, source, target })
            }
            _ => Err(PlaceRequestError(text.to_owned())),
        }
    }
}

impl ShiftDefaults {
    /// The shift that was asked for, under the number `id`.
    ///
    /// # Errors
    /// [`ShiftError`].
    pub fn shift(&self, id: ShiftId, request: &ShiftRequest) -> Result<Shift, ShiftError> {
        let mut places = self.places.clone();
        let mut given: Vec<&str> = Vec::new();
        for asked in &request.places {
            let detector = asked.detector.as_str();
            let Some(place) = places.iter_mut().find(|place| place.detector == detector) else {
                let known: Vec<&str> = self.places.iter().map(|place| place.detector.as_str()).collect();
                return Err(ShiftError::UnknownDetector { id: detector.to_owned(), known: known.join(", ") });
            };
            if given.contains(&detector) {
                return Err(ShiftError::Twice(detector.to_owned()));
            }
            given.push(detector);
            *place = self.place(asked)?;
        }
        check_apart(&places)?;
        let Owner { uid, gid } = request.owner.unwrap_or(self.owner).check()?;
        Shift::new(id, uid, gid, &self.user_dir, places)
            .map_err(|reason| ShiftError::UserDir(self.user_dir.clone(), reason))
    }

    /// `shift` goes on under a configuration that may have other detectors than when it began: those that are new get the
    /// place that the configuration gives them, if it is free. `None`: nothing is new. With what is to be said about it.
    pub fn go_on_with(&self, shift: &Shift) -> (Option<Shift>, Vec<String>) {
        let mut longer = shift.clone();
        let mut said = Vec::new();
        for place in self.places.iter().filter(|place| shift.place(&place.detector).is_none()) {
            let id = &place.detector;
            longer.places.push(place.clone());
            if check_apart(&longer.places).is_ok() {
                said.push(format!("Detector {id} is new: it takes part in the current shift as configured."));
                continue;
            }
            longer.places.pop();
            said.push(format!(
                "Detector {id} is new, and its configured target is another detector's in the current shift: its files wait there. `ppu-uringd \
                 shift start` begins a shift that it takes part in."
            ));
        }
        (longer.places.len() > shift.places.len())
            .then_some(longer)
            .map_or((None, said.clone()), |shift| (Some(shift), said))
    }

    fn place(&self, asked: &PlaceRequest) -> Result<Place, ShiftError> {
        let PlaceRequest { detector, source, target } = asked;
        let bytes = cleaned(source);
        let source = match bytes.trim_matches('/') {
            "" => None,
            below => Some(RelPath::new(below.as_bytes()).map_err(|reason| ShiftError::Source {
                id: detector.clone(),
                source_: source.clone(),
                reason,
            })?),
        };
        let refused = |reason: String| ShiftError::Target {
            id: detector.clone(),
            target: target.clone(),
            reason,
            ramdisk: super::path::printable(&self.ramdisk),
        };
        let parsed = Target::parse(&self.ramdisk, cleaned(target).as_bytes());
        let parsed = parsed.map_err(|reason| refused(reason.to_string()))?;
        if parsed.directory().is_some_and(|directory| directory.names().next() == Some(STAGING)) {
            return Err(refused("is this program's own directory".to_owned()));
        }
        Ok(Place { detector: detector.clone(), source, target: parsed })
    }
}

/// Pairs of detectors whose files are stored below the same directory (SPEC 3.2), for people.
pub fn shared_replicas(shift: &Shift) -> Vec<String> {
    let mut said = Vec::new();
    for (index, place) in shift.places.iter().enumerate() {
        for other in &shift.places[..index] {
            if overlap(place.target.replicated(), other.target.replicated()) {
                said.push(format!(
                    "Detectors {} and {} store their files below the same directory: a name that both use fails for the second (COPY_ERROR). Put \
                     '/./' before the part of the target that tells them apart.",
                    other.detector, place.detector
                ));
            }
        }
    }
    said
}

/// Each lands in a directory of its own.
fn check_apart(places: &[Place]) -> Result<(), ShiftError> {
    for (index, place) in places.iter().enumerate() {
        let directory = place.target.directory();
        let taken = |other: &&Place| overlap(directory.as_ref(), other.target.directory().as_ref());
        if let Some(other) = places[..index].iter().find(taken) {
            return Err(ShiftError::Overlap { id: place.detector.clone(), other: other.detector.clone() });
        }
    }
    Ok(())
}

/// The same, or one inside the other; `None` is the root.
fn overlap(a: Option<&RelPath>, b: Option<&RelPath>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a == b || a.below(b).is_some() || b.below(a).is_some(),
        _ => true,
    }
}

/// Doubled slashes mean one.
fn cleaned(path: &str) -> String {
    let mut clean = String::with_capacity(path.len());
    for c in path.chars() {
        if !(c == '/' && clean.ends_with('/')) {
            clean.push(c);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(detector: &str, target: &str) -> Place {
        let target = Target::parse(b"/ramdisk", target.as_bytes()).unwrap();
        Place { detector: detector.to_owned(), source: None, target }
    }

    fn defaults() -> ShiftDefaults {
        ShiftDefaults {
            ramdisk: b"/ramdisk".to_vec(),
            owner: Owner { uid: 500, gid: 501 },
            user_dir: "$UID_$GID".to_owned(),
            places: vec![place("1MF", "/ramdisk/./1mf"), place("2MF", "/ramdisk/./2mf")],
        }
    }

    fn start(places: &[&str], owner: Option<&str>) -> Result<Shift, String> {
        let mut request = ShiftRequest::default();
        for place in places {
            request.places.push(place.parse().map_err(|error: PlaceRequestError| error.to_string())?);
        }
        if let Some(owner) = owner {
            request.owner = Some(owner.parse().map_err(|error: OwnerError| error.to_string())?);
        }
        defaults().shift(ShiftId(1), &request).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_comes_from_the_configuration() {
        let shift = start(&[], None).unwrap();
        assert_eq!((shift.uid, shift.gid), (500, 501));
        assert_eq!(shift.user_dir.as_ref().unwrap().to_string(), "500_501");
        assert_eq!(shift.places, defaults().places);
        let shift = start(&["2MF:run//1/:/ramdisk//x/./2mf/"], Some("700")).unwrap();
        assert_eq!((shift.uid, shift.gid), (700, 700));
        assert_eq!(shift.places[0], defaults().places[0]);
        let file = RelPath::new(b"f").unwrap();
        assert_eq!(shift.places[1].source.as_ref().unwrap().to_string(), "run/1");
        let at = shift.places[1].target.landing(shift.user_dir.as_ref(), &file).unwrap();
        assert_eq!(at.to_string(), "x/2mf/700_700/f");
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_to_do() {
        let refused = |places: &[&str], owner: Option<&str>, says: &str| {
            let error = start(places, owner).unwrap_err();
            assert!(error.contains(says), "{places:?} {owner:?}: {error}");
        };
        refused(&["3MF:/:/ramdisk/x"], None, "the configuration has 1MF, 2MF");
        refused(&["1MF:/:/ramdisk/a", "1MF:/:/ramdisk/b"], None, "given twice");
        refused(&["1MF:/:/data/a"], None, "is not below the ramdisk; write a path such as /ramdisk/./1MF");
        refused(&["1MF:/:/ramdisk/../etc"], None, "'.' or '..'");
        refused(&["1MF:/:/ramdisk/.ppu-uringd/x"], None, "own directory");
        refused(&["1MF:../x:/ramdisk/a"], None, "plain path");
        refused(&["1MF:/:/ramdisk/2mf/x"], None, "inside each other");
        refused(&["1MF:/:/ramdisk/2mf"], None, "inside each other");
        refused(&["1MF:/:/ramdisk"], None, "inside each other");
        refused(&["1MF:/"], None, "write for example");
        refused(&[":/:/ramdisk/a"], None, "write for example");
        for owner in ["0", "0:5", "00"] {
            refused(&[], Some(owner), "is root");
        }
        for owner in ["", ":", "5:", ":5", "-1", "5:-1", "+5", "a", "5:6:7", " 5"] {
            refused(&[], Some(owner), "write two numbers");
        }
        for owner in ["4294967295", "5:4294967295", "99999999999"] {
            refused(&[], Some(owner), "go up to");
        }
    }

    #[test]
    fn a_shared_replica_root_is_said() {
        assert_eq!(shared_replicas(&start(&[], None).unwrap()), [""; 0]);
        let shared = start(&["1MF:/:/ramdisk/1mf", "2MF:/:/ramdisk/2mf"], None).unwrap();
        assert!(shared_replicas(&shared)[0].contains("1MF and 2MF"));
    }

    #[test]
    fn a_shift_goes_on_with_other_detectors() {
        let shift = start(&["1MF:/:/ramdisk/./old"], Some("900")).unwrap();
        let mut config = defaults();
        assert_eq!(config.go_on_with(&shift), (None, vec![]));
        config.places.remove(0);
        assert_eq!(config.go_on_with(&shift), (None, vec![]), "one is gone");
        config.places.push(place("3MF", "/ramdisk/./3mf"));
        config.places.push(place("4MF", "/ramdisk/./old"));
        let (longer, said) = config.go_on_with(&shift);
        let longer = longer.unwrap();
        assert_eq!((longer.id, longer.uid, &longer.user_dir), (shift.id, 900, &shift.user_dir));
        assert_eq!(longer.places[..2], shift.places);
        assert_eq!(longer.places[2..], [place("3MF", "/ramdisk/./3mf")]);
        assert!(said[0].starts_with("Detector 3MF is new") && said[1].contains("4MF"), "{said:?}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}", source in ".{0,20}", target in ".{0,20}") {
            let _ = text.parse::<Owner>();
            let _ = text.parse::<PlaceRequest>();
            let request = ShiftRequest {
                places: vec![PlaceRequest { detector: "1MF".to_owned(), source, target: format!("/ramdisk/{target}") }],
                owner: None,
            };
            let _ = defaults().shift(ShiftId(1), &request);
        }
    }
}
