use caudal_flow::*;
use std::time::Instant;
fn main() {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async {
        let engine = Engine::new(Options::default());
        for _ in 0..3 {
            let mut p = Pipeline::<i64, i64>::new("p");
            for i in 0..1000 {
                p = p.step(format!("s{i}"), |x: &i64, _| Ok(x + 1));
            }
            let d = p.define();
            let t = Instant::now();
            let n = 200;
            for _ in 0..n {
                let r = engine.run(&d, Value::from(0), RunOptions::default()).await;
                assert_eq!(r.output().unwrap(), Value::from(1000));
            }
            println!("chain {:.0} steps/s", n as f64 * 1000.0 / t.elapsed().as_secs_f64());
            let one = Pipeline::<i64, i64>::new("p").step("one", |x: &i64, _| Ok(x + 1)).define();
            let t = Instant::now();
            let n = 100_000;
            for _ in 0..n {
                engine.run(&one, Value::from(0), RunOptions::default()).await;
            }
            println!("one {:.0} runs/s", n as f64 / t.elapsed().as_secs_f64());
            let text = "x".repeat(1000);
            let mut p = Pipeline::<String, String>::new("p");
            for _ in 0..1000 {
                p = p.step("same", |x: &String, _| Ok(x.clone())).cached();
            }
            let d = p.define();
            let t = Instant::now();
            let n = 100;
            for _ in 0..n {
                engine.run(&d, Value::from(text.clone()), RunOptions::default()).await;
            }
            println!("cached {:.0} steps/s", n as f64 * 1000.0 / t.elapsed().as_secs_f64());
            let branch = |n: &str| Pipeline::<i64, i64>::new(n).step("inc", |x: &i64, _| Ok(x + 1));
            let d = Pipeline::<i64, i64>::new("mix")
                .parallel("par", [branch("a"), branch("b"), branch("c"), branch("d")])
                .step("red", |_: &std::collections::BTreeMap<String, i64>, _| Ok(1i64))
                .cached()
                .define();
            let t = Instant::now();
            let n = 20_000;
            for _ in 0..n {
                let r = engine.run(&d, Value::from(0), RunOptions::default()).await;
                assert_eq!(r.output().unwrap(), Value::from(1));
            }
            println!("mixed {:.0} steps/s", n as f64 * 5.0 / t.elapsed().as_secs_f64());
        }
    });
}
