//! How many clients at a time, so that no user can keep the others, or root, out.

use std::collections::HashMap;

use super::Peer;

/// Clients at a time.
const CLIENTS_MAX: usize = 64;
/// Of them, clients that are neither root nor the daemon's user.
const OTHERS_MAX: usize = 48;
/// Of those, clients of one user.
const PER_USER_MAX: usize = 16;

/// Who is connected.
#[derive(Debug, Default)]
pub(super) struct Seats {
    trusted: usize,
    others: HashMap<u32, usize>,
}

impl Seats {
    /// Takes one, or says why there is none.
    pub(super) fn take(&mut self, peer: Peer) -> Result<(), String> {
        let others: usize = self.others.values().sum();
        if self.trusted + others >= CLIENTS_MAX {
            return Err(format!("{CLIENTS_MAX} clients are connected already: try again"));
        }
        if peer.is_trusted() {
            self.trusted += 1;
            return Ok(());
        }
        if others >= OTHERS_MAX {
            return Err(format!("{OTHERS_MAX} clients of users are connected already: try again"));
        }
        let own = self.others.entry(peer.uid).or_default();
        if *own >= PER_USER_MAX {
            return Err(format!("{PER_USER_MAX} clients of this user are connected already: try again"));
        }
        *own += 1;
        Ok(())
    }

    /// Gives one back.
    pub(super) fn leave(&mut self, peer: Peer) {
        if peer.is_trusted() {
            self.trusted = self.trusted.saturating_sub(1);
        } else if let Some(own) = self.others.get_mut(&peer.uid) {
            *own -= 1;
            if *own == 0 {
                self.others.remove(&peer.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_leave_room_for_each_other_and_for_root() {
        let mut seats = Seats::default();
        let user = |n: u32| Peer { uid: 3_000_000_000 + n, gid: 0 };
        let root = Peer { uid: 0, gid: 0 };
        for _ in 0..PER_USER_MAX {
            seats.take(user(1)).unwrap();
        }
        assert!(seats.take(user(1)).unwrap_err().starts_with("16 clients of this user"));
        for n in 2..=3 {
            for _ in 0..PER_USER_MAX {
                seats.take(user(n)).unwrap();
            }
        }
        assert!(seats.take(user(4)).unwrap_err().starts_with("48 clients of users"));
        for _ in OTHERS_MAX..CLIENTS_MAX {
            seats.take(root).unwrap();
        }
        assert!(seats.take(root).unwrap_err().starts_with("64 clients are connected already"));
        seats.leave(user(2));
        seats.take(root).unwrap();
        seats.leave(root);
        seats.take(user(4)).unwrap();
    }
}
