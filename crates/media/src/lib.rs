//! Films cut, encoded in parallel and joined again, by the system's ffmpeg.
