//! The file system below a held directory: nothing here ever leaves it, whatever users do to names meanwhile.
//!
//! Every path is resolved by openat2 from a descriptor that was opened once, without following any symlink and
//! without leaving the root (SPEC 1.7; FAULTS 41). What is written is made in a private *staging* directory on the
//! same file system and appears under its name in one step, complete, by [`Staging::publish`]; what is
//! removed goes the same way back, by [`Taker::take`].

mod brand;
mod clock;
mod content;
mod directory;
mod handed;
pub mod mount;
mod note;
mod publish;
mod root;
mod staging;
mod take;
mod walk;

pub use brand::{BRAND_BYTES_MAX, BrandSpace};
pub use content::hash_content;
pub use directory::{DirAttributes, Made, inherit_gid};
pub use handed::Handed;
pub use publish::{Attributes, Occupied, Publication, PublishError, Published, Replaced, set_mtime};
pub use root::{FileStat, FileSystem, Root, RootError, Space};
pub use staging::{MEASURING_PREFIX, STAGING_NAME, Staged, Staging, Swept, is_own_name};
pub use take::{Expected, Instead, Link, NotTaken, OutOfSight, StillOpen, TakeError, Taken, Taker, Taking};
pub use walk::{Found, Walked};

#[cfg(test)]
mod take_tests;
#[cfg(test)]
mod tests;
