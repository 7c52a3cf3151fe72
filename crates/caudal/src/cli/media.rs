//! `caudal media …`.

use std::{ffi::OsString, path::PathBuf};

use clap::{Arg, ArgAction, Command, value_parser};

use super::{duration, option};

/// Exit codes of `caudal media`.
const CODES: &str = "Nothing is written unless the whole result was checked against its source: as many frames, at their times, \
                     with their sound.\nExit code: 0 then, 1 if it could not be made, 2 for a wrong command line, 130 after Ctrl-C.";

/// The command line of all of them.
pub(super) fn command() -> Command {
    Command::new("media")
        .about("Probes, splits, encodes and concatenates videos with the system's ffmpeg")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(probe())
        .subcommand(split())
        .subcommand(transcode())
        .subcommand(concat())
        .subcommand(guard())
}

fn probe() -> Command {
    with_limits(Command::new("probe").about("Shows the streams of a video").arg(film()))
}

fn split() -> Command {
    let command = Command::new("split")
        .about("Splits a video at key frames into playable files, without re-encoding")
        .after_help(format!("Example:\n  caudal media split film.mp4 -o parts/ --segments 4\n\n{CODES}"))
        .arg(film())
        .arg(output("DIR", "folder to create, with segment_0.mp4 and so on and their list, segments.json"))
        .arg(
            option("segments", "N")
                .value_parser(value_parser!(usize))
                .default_value("4")
                .help("number of parts, if the video has as many key frames"),
        )
        .arg(force());
    with_limits(command)
}

fn transcode() -> Command {
    let examples = "Examples:\n  \
                    caudal media transcode film.mov -o film.mp4\n  \
                    caudal media transcode film.mkv -o small.mp4 --video-codec hevc --crf 30 --preset slow\n  \
                    caudal media transcode film.mp4 -o sound.m4a --video-codec none --audio-codec copy";
    let number = |name, value| option(name, value).value_parser(value_parser!(usize));
    let command = Command::new("transcode")
        .about("Re-encodes a video, in parallel segments if there are enough cores")
        .after_help(format!("{examples}\n\n{CODES}"))
        .arg(film())
        .arg(output("FILE", "output file: .mp4, .m4v, .mov, .mkv, .webm, .m4a or .mka"))
        .arg(number("segments", "N").help("segments, cut at key frames [default: by cores and encoder]"))
        .arg(
            number("jobs", "N").help("segments encoded concurrently, sharing the cores [default: by cores and encoder]"),
        )
        .arg(
            option("video-codec", "CODEC")
                .value_parser(["auto", "h264", "hevc", "av1", "vp9", "copy", "none"])
                .default_value("auto")
                .help("video codec; auto is h264"),
        )
        .arg(option("encoder", "NAME").default_value("auto").help(
            "auto: hardware where it works, else software; software; or one by ffmpeg's name, such as h264_nvenc",
        ))
        .arg(
            option("crf", "N")
                .value_parser(value_parser!(u8))
                .help("CRF: lower means better quality and a larger file [default: 23 for h264, 28 for hevc, 35 for av1, 31 for vp9]"),
        )
        .arg(
            option("preset", "NAME")
                .help("the encoder's speed preset, such as veryfast, p4 or 8"),
        )
        .arg(
            option("audio-codec", "CODEC")
                .value_parser(["aac", "opus", "copy", "none"])
                .default_value("aac")
                .help("audio codec"),
        )
        .arg(force());
    with_limits(command)
}

fn concat() -> Command {
    let command = Command::new("concat")
        .about("Concatenates videos with equal parameters, without re-encoding")
        .after_help(format!("Example:\n  caudal media concat a.mp4 b.mp4 c.mp4 -o all.mp4\n\n{CODES}"))
        .arg(
            Arg::new("inputs")
                .required(true)
                .num_args(1..)
                .value_name("FILES")
                .value_parser(value_parser!(PathBuf))
                .help("videos, in order"),
        )
        .arg(output("FILE", "output file: .mp4, .m4v, .mov, .mkv, .webm, .m4a or .mka"))
        .arg(force());
    with_limits(command)
}

/// Launcher of ffmpeg child processes: sets limits, then executes ffmpeg.
fn guard() -> Command {
    let words = Arg::new("words").num_args(1..).allow_hyphen_values(true).trailing_var_arg(true);
    Command::new("guard").hide(true).arg(words.value_parser(value_parser!(OsString)))
}

fn film() -> Arg {
    Arg::new("input").required(true).value_name("FILE").value_parser(value_parser!(PathBuf)).help("the video file")
}

fn output(value: &'static str, help: &'static str) -> Arg {
    option("output", value).short('o').required(true).value_parser(value_parser!(PathBuf)).help(help)
}

fn force() -> Arg {
    Arg::new("force").long("force").action(ArgAction::SetTrue).help("overwrite existing output")
}

fn with_limits(command: Command) -> Command {
    let limit = |argument: Arg| argument.help_heading("Limits");
    let number = |name, value| option(name, value).value_parser(value_parser!(u64).range(1..));
    command
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("print one JSON object"))
        .arg(limit(duration("max-duration").help("longest video [default: 24h]")))
        .arg(limit(number("max-gigabytes", "N").help("largest file [default: 1099]")))
        .arg(limit(number("max-megapixels", "N").help("largest frame [default: 67]")))
        .arg(limit(duration("stall-timeout").help("how long ffmpeg may make no progress [default: 60s]")))
}
