//! Films and names that would lead elsewhere.

use std::{fs, net::TcpListener, process::Command};

use crate::{CAUDAL, H264, said, studio};

/// Somebody who must not be called.
struct Ear(TcpListener);

impl Ear {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    fn heard_nothing(&self) {
        assert!(self.0.accept().is_err(), "somebody called");
    }
}

#[test]
fn films_that_lead_elsewhere_are_not_followed() {
    let Some(studio) = studio() else { return };
    let ear = Ear::new();
    let (address, secret) = (ear.address(), studio.plain(1.0));
    let hls = |target: &str| format!("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10.0,\n{target}\n#EXT-X-ENDLIST\n");
    let traps = [
        ("hls-file.mp4", hls("/etc/passwd"), "playlist (HLS"),
        ("hls-film.mp4", hls(&secret), "playlist (HLS"),
        ("hls-net.mp4", hls(&format!("http://{address}/a.ts")), "playlist (HLS"),
        ("hls-bom.ts", format!("\u{feff}{}", hls(&format!("http://{address}/a.ts"))), "playlist (HLS"),
        ("script.mp4", format!("ffconcat version 1.0\nfile {secret}\n"), "script for ffmpeg's concat"),
        ("list.mp4", format!("file '{secret}'\n"), "list of files"),
        ("dash.mp4", format!("<?xml version=\"1.0\"?><MPD><BaseURL>http://{address}/</BaseURL></MPD>"), "DASH"),
        ("call.mp4", format!("v=0\nc=IN IP4 127.0.0.1\nm=video {} RTP/AVP 96\n", &address[10..]), "SDP"),
        ("frame%d.mp4", "\u{89}PNG".to_owned(), "no kind that is known"),
    ];
    for (name, content, told) in &traps {
        fs::write(studio.path(name), content).unwrap();
        for words in [&["probe", name][..], &["transcode", name, "-o", "o.mp4"], &["split", name, "-o", "o"]] {
            studio.refuses(words, 1, told);
        }
        studio.refuses(&["concat", &secret, name, "-o", "o.mp4"], 1, told);
    }
    // A playlist behind the head of a film is what its head says: a film, and a broken one.
    let disguised =
        [b"\0\0\0\x18ftypisom\0\0\0\0isommp42".to_vec(), hls(&format!("http://{address}/a")).into_bytes()].concat();
    fs::write(studio.path("disguised.mp4"), disguised).unwrap();
    studio.refuses(&["transcode", "disguised.mp4", "-o", "o.mp4"], 1, "is no film that ffmpeg reads");
    // Addresses are names of files here, and of files that are not there.
    for name in [
        &format!("http://{address}/a.mp4"),
        &format!("concat:{secret}|{secret}"),
        &format!("tcp://{address}"),
        "pipe:0",
    ] {
        studio.refuses(&["transcode", name, "-o", "o.mp4"], 1, "cannot be read");
    }
    studio.refuses(&["probe", "/dev/zero"], 1, "no regular file");
    ear.heard_nothing();
}

#[test]
fn names_are_names_whatever_they_look_like() {
    let Some(studio) = studio() else { return };
    let source = studio.plain(1.0);
    for name in ["-y.mp4", "http:film.mp4", "concat:a|b.mp4", "100%d of 'it'.mp4", "film\nfile x.mp4", "sub:dir.mp4"] {
        fs::copy(&source, studio.path(name)).unwrap();
        let input = format!("./{name}");
        let out = format!("./out of {name}");
        studio.does(&["transcode", "-o", &out, "--preset", "ultrafast", "--", &input]);
        studio.does(&["split", "-o", &format!("./parts of {name}"), "--segments", "2", "--", &input]);
        studio.does(&["concat", "-o", &format!("./twice {name}"), "--", &input, &input]);
    }
    assert_eq!(studio.does(&["transcode", "-o", "last.mp4", "--", "-y.mp4"])["frames"], 25);
}

/// The box at `path` within `boxes`, replaced by `new`; those around it grow or shrink with it.
fn replaced(boxes: &[u8], path: &[&[u8; 4]], new: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), boxes);
    while rest.len() >= 8 {
        let size = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        let (this, after) = rest.split_at(size);
        rest = after;
        if this[4..8] != path[0][..] {
            out.extend_from_slice(this);
            continue;
        }
        let inner = if path.len() == 1 { new.to_vec() } else { replaced(&this[8..], &path[1..], new) };
        out.extend_from_slice(&(inner.len() as u32 + 8).to_be_bytes());
        out.extend_from_slice(path[0]);
        out.extend_from_slice(&inner);
    }
    out
}

/// An entry of QuickTime's list of files that data lies in, naming `path`.
fn alias(path: &str) -> Vec<u8> {
    let mut alias = vec![0; 4 + 10];
    alias.push(3);
    alias.extend([b'd'; 27]);
    alias.extend([0; 12]);
    let name = path.rsplit('/').next().unwrap();
    alias.push(name.len() as u8);
    alias.extend(name.bytes().chain(std::iter::repeat(0)).take(63));
    alias.extend([0; 16]);
    alias.extend([0, 1, 0, 1]);
    alias.extend([0; 16]);
    alias.extend([0, 2]);
    alias.extend((path.len() as u16).to_be_bytes());
    alias.extend(path.bytes().chain(std::iter::repeat_n(0, path.len() % 2)));
    alias.extend([0xff, 0xff, 0, 0]);
    let mut list = vec![0, 0, 0, 0, 0, 0, 0, 1];
    list.extend((alias.len() as u32 + 8).to_be_bytes());
    list.extend(b"alis");
    list.extend(alias);
    list
}

#[test]
fn tracks_whose_data_lies_in_other_files_are_not_read() {
    let Some(studio) = studio() else { return };
    let secret = studio.film("secret.mov", 1.0, &[&H264[..], &["-an"]].concat());
    let film = fs::read(&secret).unwrap();
    let path: [&[u8; 4]; 6] = [b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"];
    let mut thief = replaced(&film, &path, &alias(&secret));
    // The data itself is not there any more, so whoever sees frames has read the other file.
    let data = thief.windows(4).position(|window| window == b"mdat").unwrap();
    let size = u32::from_be_bytes(thief[data - 4..data].try_into().unwrap()) as usize;
    thief[data + 4..data - 4 + size].fill(0);
    fs::write(studio.path("thief.mov"), thief).unwrap();
    let reads = |words: &[&str]| {
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error"]).args(words).args(["-i", &studio.text("thief.mov"), "-f", "framemd5", "-"]);
        let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).count()
    };
    assert_eq!(reads(&["-enable_drefs", "1", "-use_absolute_path", "1"]), 25, "the trap is none");
    studio.refuses(&["transcode", "thief.mov", "-o", "o.mp4"], 1, "");
    studio.refuses(&["transcode", "thief.mov", "-o", "o.mp4", "--video-codec", "copy"], 1, "");
}

/// The kernel keeps ffmpeg from what is not its own, even if its own options did not.
#[test]
fn a_child_sees_its_files_and_nothing_else() {
    if !caudal_media::kernel_guards() {
        return eprintln!("skipped: this kernel has no Landlock");
    }
    let folder = tempfile::tempdir().unwrap();
    let (mine, theirs) = (folder.path().join("mine"), folder.path().join("theirs"));
    let work = folder.path().join("work");
    fs::create_dir(&work).unwrap();
    for file in [&mine, &theirs] {
        fs::write(file, "content").unwrap();
    }
    let ear = Ear::new();
    let guarded = |parent: u32, script: &str| {
        let mut command = Command::new(CAUDAL);
        command
            .args(["media", "guard", "--parent", &parent.to_string(), "--read"])
            .arg(&mine)
            .arg("--write")
            .arg(&work);
        command.args(["--", "/bin/bash", "-c", script]).output().unwrap()
    };
    let own = std::process::id();
    let script = format!("cat {}; cd {}; echo film > out; cat out", mine.display(), work.display());
    assert_eq!(said(&guarded(own, &script)), "contentfilm\n");
    for script in [
        &format!("cat {}", theirs.display()),
        "cat /etc/passwd",
        &format!("echo x > {}", mine.display()),
        &format!("echo x > {}/new", folder.path().display()),
        "kill -0 1 && cat /proc/1/environ",
    ] {
        let output = guarded(own, script);
        assert!(!output.status.success(), "{script}: {}", said(&output));
    }
    let output = guarded(own, &format!("exec 3<>/dev/tcp/{}", ear.address().replace(':', "/")));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) >= (Some(6), Some(7)) {
        assert!(!output.status.success(), "{}", said(&output));
        ear.heard_nothing();
    }
    let output = guarded(1, "echo ran");
    assert!(!said(&output).contains("ran\n") && said(&output).contains("the parent has gone"), "{}", said(&output));
}
