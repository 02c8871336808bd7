//! The vocabulary and the rules, without IO and without a clock: time comes in as an argument.

pub mod catalog;
pub mod event;
pub mod extra;
pub mod file_version;
pub mod half;
pub mod host;
pub mod job;
pub mod ledger;
pub mod message;
pub mod offer;
pub mod pacing;
pub mod path;
pub mod pressure;
pub mod record;
pub mod release;
pub mod replica_path;
pub mod residents;
pub mod send;
pub mod shift;
pub mod shift_report;
pub mod shift_request;
pub mod status;
pub mod teller;
