//! `caudal media …`.

use std::{ffi::OsString, path::PathBuf};

use clap::{Arg, ArgAction, Command, value_parser};

use super::{duration, option};

/// What scripts must know of all of `caudal media`.
const CODES: &str = "Nothing is written unless the whole result is there and is what its source is: as many frames, at their times, \
                     with their sound.\nExit code: 0 then, 1 if it could not be made, 2 for a wrong command line, 130 after Ctrl-C.";

/// The command line of all of them.
pub(super) fn command() -> Command {
    Command::new("media")
        .about("Looks at films, cuts, encodes and joins them, by the system's ffmpeg")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(probe())
        .subcommand(split())
        .subcommand(transcode())
        .subcommand(concat())
        .subcommand(guard())
}

fn probe() -> Command {
    with_limits(Command::new("probe").about("Tells what a film consists of").arg(film()))
}

fn split() -> Command {
    let command = Command::new("split")
        .about("Cuts a film at key frames into files that play by themselves, without encoding")
        .after_help(format!("Example:\n  caudal media split film.mp4 -o parts/ --segments 4\n\n{CODES}"))
        .arg(film())
        .arg(output("DIR", "the folder to make, with segment_0.mp4 and so on and a list of them, segments.json"))
        .arg(
            option("segments", "N")
                .value_parser(value_parser!(usize))
                .default_value("4")
                .help("parts, if the film has as many key frames"),
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
        .about("Encodes a film anew, in parts at once where the machine has the cores")
        .after_help(format!("{examples}\n\n{CODES}"))
        .arg(film())
        .arg(output("FILE", "what to make: .mp4, .m4v, .mov, .mkv, .webm, .m4a or .mka"))
        .arg(number("segments", "N").help("parts of the video, cut at key frames [default: by cores and encoder]"))
        .arg(
            number("jobs", "N").help("parts that are encoded at once; cores are shared among them [default: likewise]"),
        )
        .arg(
            option("video-codec", "CODEC")
                .value_parser(["auto", "h264", "hevc", "av1", "vp9", "copy", "none"])
                .default_value("auto")
                .help("what frames become; auto is h264"),
        )
        .arg(option("encoder", "NAME").default_value("auto").help(
            "auto: hardware where it works, else software; software; or one by ffmpeg's name, such as h264_nvenc",
        ))
        .arg(
            option("crf", "N")
                .value_parser(value_parser!(u8))
                .help("quality: less is better and larger [default: 23 for h264, 28 for hevc, 35 for av1, 31 for vp9]"),
        )
        .arg(
            option("preset", "NAME")
                .help("the encoder's own word for how much time it takes, such as veryfast, p4 or 8"),
        )
        .arg(
            option("audio-codec", "CODEC")
                .value_parser(["aac", "opus", "copy", "none"])
                .default_value("aac")
                .help("what sound becomes"),
        )
        .arg(force());
    with_limits(command)
}

fn concat() -> Command {
    let command = Command::new("concat")
        .about("Puts films that are alike one after the other, without encoding")
        .after_help(format!("Example:\n  caudal media concat a.mp4 b.mp4 c.mp4 -o all.mp4\n\n{CODES}"))
        .arg(
            Arg::new("inputs")
                .required(true)
                .num_args(1..)
                .value_name("FILES")
                .value_parser(value_parser!(PathBuf))
                .help("films, in order"),
        )
        .arg(output("FILE", "what to make: .mp4, .m4v, .mov, .mkv, .webm, .m4a or .mka"))
        .arg(force());
    with_limits(command)
}

/// What our children are before they become ffmpeg.
fn guard() -> Command {
    let words = Arg::new("words").num_args(1..).allow_hyphen_values(true).trailing_var_arg(true);
    Command::new("guard").hide(true).arg(words.value_parser(value_parser!(OsString)))
}

fn film() -> Arg {
    Arg::new("input").required(true).value_name("FILE").value_parser(value_parser!(PathBuf)).help("the film")
}

fn output(value: &'static str, help: &'static str) -> Arg {
    option("output", value).short('o').required(true).value_parser(value_parser!(PathBuf)).help(help)
}

fn force() -> Arg {
    Arg::new("force").long("force").action(ArgAction::SetTrue).help("replace what is there")
}

fn with_limits(command: Command) -> Command {
    let limit = |argument: Arg| argument.help_heading("Limits");
    let number = |name, value| option(name, value).value_parser(value_parser!(u64).range(1..));
    command
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("answer as one JSON object"))
        .arg(limit(duration("max-duration").help("longest film [default: 24h]")))
        .arg(limit(number("max-gigabytes", "N").help("largest file [default: 1099]")))
        .arg(limit(number("max-megapixels", "N").help("largest frame [default: 67]")))
        .arg(limit(duration("stall-timeout").help("how long ffmpeg may make no progress [default: 60s]")))
}
