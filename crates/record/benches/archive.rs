//! Sealing: 2,000 consultations of 50 events of 1 KB, and one of a million; how small they get, and one event out of them.
//!
//!     cargo bench -p caudal-record --bench archive [-- CODEC...]
//!
//! `-- table` prints what `caudal bench codec --events 20000` measures instead.

use std::{convert::Infallible, env, fs, path::Path, time::Instant};

use caudal_record::archive::{
    Codec, Link, Options, Reader, Writer,
    bench::{self, Plan},
    sample,
};
use caudal_store::{Record, Stream};

type Made = Vec<(Stream, Vec<Record>)>;

fn main() {
    let words: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
    let codecs = if words.is_empty() { vec!["zstd-3".to_owned(), Codec::default().to_string()] } else { words };
    let folder = env::temp_dir().join(format!("caudal-archive-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("the system has a folder for temporary files");
    if codecs == ["table"] {
        table(&folder);
        return;
    }
    let small: Made = (0..2_000).map(|number| sample::consultation(number, 50, 1_000)).collect();
    for codec in &codecs {
        seal("2,000 consultations of 50 events", &folder.join("a.h5"), codec, &small);
    }
    drop(small);
    let large: Made = vec![sample::consultation(0, 1_000_000, 1_000)];
    for codec in &codecs {
        seal("one consultation of 1,000,000 events", &folder.join("a.h5"), codec, &large);
    }
    fs::remove_dir_all(&folder).expect("it was made above");
}

fn table(folder: &Path) {
    let plan = Plan { events: 20_000, bytes: 1_000, repeats: 5 };
    let report = bench::codecs(plan, folder, &mut |_| {}).expect("files can be written");
    for row in report.rows {
        println!(
            "| {} | {:?} | {} | {:.0} | {:.0} | {:.0} | {:.2} | {:.0} | {:.0} |",
            row.corpus,
            row.layout,
            row.codec,
            row.write_ms,
            row.read_ms,
            row.size as f64 / 1e3,
            row.ratio,
            row.write_mb_s,
            row.read_mb_s
        );
    }
    println!("{} {}", report.recommended, report.recommended_with_plugin);
}

fn seal(what: &str, path: &Path, codec: &str, made: &Made) {
    let codec = codec.parse().expect("a codec, such as zstd-3");
    let options = Options { codec, limit: u64::MAX, ..Options::default() };
    let began = Instant::now();
    let mut writer = Writer::create(path, options).expect("the file can be made");
    for (stream, records) in made {
        let mut records = records.iter().cloned().map(Ok::<_, Infallible>);
        writer.add(stream, Link::origin(stream), &mut records).expect("the records fit together");
    }
    let added = began.elapsed().as_secs_f64();
    let sealed = writer.finish().expect("it is written and read back");
    let seconds = began.elapsed().as_secs_f64();
    let (input, output) = (sealed.bytes_in as f64, sealed.bytes_out as f64);
    println!(
        "{what}, {codec}: {:.0} MB in {seconds:.2} s ({added:.2} s until the last record was taken), {:.0} MB/s, ratio {:.2}, {:.0} bytes a stream",
        input / 1e6,
        input / 1e6 / seconds,
        input / output,
        output / made.len() as f64
    );
    let (stream, records) = &made[made.len() / 2];
    let mut times: Vec<f64> = (0..101)
        .map(|turn| {
            let began = Instant::now();
            let reader = Reader::open(path).expect("it was sealed above");
            let after = records.len() as u64 * turn / 101;
            assert_eq!(reader.read(&stream.id, after, 1).expect("it is whole")[0], records[after as usize]);
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("  one event, opening included: median {:.2} ms, worst {:.2} ms", times[50], times[100]);
    fs::remove_file(path).expect("it was sealed above");
}
