//! Extra files (SPEC 3.9): taken in by descriptor from whoever may read them, or by path from a named pipe.

pub mod examine;
pub mod pipe;
