//! The PPU's half of the fetch: one link per detector, its session, its data connections, and the files they land.

pub mod connect;
pub mod expect;
pub mod landing;
pub mod link;
mod payload;
mod session;
pub mod stream;
