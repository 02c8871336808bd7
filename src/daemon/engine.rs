//! Which engine moves the data, decided once at start.

use ppu_uring::{Choice, Engine, EngineError, Limits, open_engine};

/// The decision: what was asked for, and what came of it.
#[derive(Debug, Clone, Copy)]
pub struct EngineChoice {
    engine: Engine,
}

impl EngineChoice {
    /// What the data plane runs on.
    pub fn engine(self) -> Engine {
        self.engine
    }

    /// For threads that open their own.
    pub fn choice(self) -> Choice {
        match self.engine {
            Engine::Uring => Choice::Uring,
            Engine::Syscall => Choice::Syscall,
        }
    }
}

/// Tries the engine that is configured; `auto` says why where it has to fall back.
///
/// # Errors
/// Where the one asked for cannot be had: cause and cure.
pub fn choose(configured: ppu_config::Engine) -> Result<EngineChoice, EngineError> {
    let choice = match configured {
        ppu_config::Engine::Auto => Choice::Auto,
        ppu_config::Engine::Uring => Choice::Uring,
        ppu_config::Engine::Syscall => Choice::Syscall,
    };
    let opened = open_engine(choice, Limits { depth: 8, workers: 1 })?;
    if let Some(why) = &opened.fallback {
        tracing::warn!("engine = \"syscall\", because io_uring cannot be used: {why}");
    }
    Ok(EngineChoice { engine: opened.driver.engine() })
}
