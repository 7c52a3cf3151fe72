//! What a film may be at most. Each limit is checked before work is begun that grows with it.

use std::time::Duration;

/// What a film may be at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// How long it may play.
    pub duration: Duration,
    /// Bytes of the file.
    pub bytes: u64,
    /// Pixels of a frame; ffmpeg's decoders keep to it too.
    pub pixels: u64,
    /// Streams.
    pub streams: usize,
    /// Packets of all streams; each frame of the video takes some bytes of memory while a film is planned.
    pub packets: u64,
    /// How long an ffmpeg may run without any progress.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(24 * 3600),
            bytes: 1 << 40,
            pixels: 8192 * 8192,
            streams: 64,
            packets: 50_000_000,
            stall: Duration::from_secs(60),
        }
    }
}
