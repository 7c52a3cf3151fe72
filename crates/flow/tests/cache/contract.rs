//! What every cache does, with a shelf or without.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use caudal_flow::{
    Answered, Cached, Engine, Found, Kind, Limits, Map, Options, RunOptions, Shelf, Step, StepCache, StepError, Steps,
    Usage, Value, function, later, value,
};

use crate::{HOUR, ROOM, answer, ask, bits, key, open};

/// A place for caches of one sort.
struct Place {
    shelf: Option<Arc<dyn Shelf>>,
    _folder: tempfile::TempDir,
}

impl Place {
    /// One of each sort.
    fn all() -> [Self; 2] {
        [false, true].map(|shelved| {
            let folder = tempfile::tempdir().unwrap();
            let shelf = shelved.then(|| Arc::new(open(folder.path())) as Arc<dyn Shelf>);
            Self { shelf, _folder: folder }
        })
    }

    fn cache(&self, bytes: u64, ttl: Duration) -> StepCache {
        StepCache::new(bytes, Some(ttl), self.shelf.clone())
    }

    fn engine(&self) -> Engine {
        Engine::new(Options { shelf: self.shelf.clone(), ..Options::default() })
    }

    fn shelved(&self) -> bool {
        self.shelf.is_some()
    }
}

#[tokio::test]
async fn an_answer_is_made_once_and_comes_back_as_it_was() {
    let values = [
        Value::Null,
        value!(true),
        value!([i64::MIN, u64::MAX, 0.1, -0.0, 1.0, 5e-324]),
        value!({"$bytes": "not base64"}),
        Value::Bytes(vec![0, 255].into()),
        value!({"deep": {"er": [{}, [], "Ä\u{0}"]}}),
    ];
    for place in Place::all() {
        let cache = place.cache(ROOM, HOUR);
        for (number, made) in (0..).zip(&values) {
            assert_eq!(ask(&cache, number, made.clone()).await.1, Found::Made);
            let (again, found) = ask(&cache, number, "other").await;
            assert_eq!((bits(&again), found), (bits(made), Found::Remembered), "{made}");
        }
        // Who begins anew finds what stands on the shelf, as it was.
        for (number, made) in (0..).zip(values.iter().filter(|_| place.shelved())) {
            let mut again = (Value::Null, Found::Made);
            while again.1 == Found::Made {
                tokio::time::sleep(Duration::from_millis(2)).await;
                again = ask(&place.cache(ROOM, HOUR), number, made.clone()).await;
            }
            assert_eq!(bits(&again.0), bits(made), "{made}");
        }
    }
}

#[tokio::test]
async fn changes_of_the_context_are_remembered_with_it() {
    for place in Place::all() {
        let cache = place.cache(ROOM, HOUR);
        let changes: Map = [("a", value!({"b": 1.5}))].into_iter().collect();
        let made = Answered { value: 1.into(), changes: changes.clone() };
        for _ in 0..2 {
            let (answered, _) = cache.get(key(1), None, async { Ok::<_, ()>(made.clone()) }).await.unwrap();
            assert_eq!((answered.value, answered.changes), (1.into(), changes.clone()));
        }
    }
}

#[tokio::test]
async fn a_failure_is_never_kept() {
    for place in Place::all() {
        let cache = place.cache(ROOM, HOUR);
        let fails = cache.get(key(1), None, async { Err::<Answered, _>("no luck") }).await;
        assert_eq!(*fails.unwrap_err(), "no luck");
        assert_eq!(ask(&cache, 1, "luck").await, ("luck".into(), Found::Made));
        assert_eq!(ask(&place.cache(ROOM, HOUR), 2, "other").await.1, Found::Made);
    }
}

#[tokio::test]
async fn an_answer_holds_for_its_time_and_then_another_does() {
    let short = Duration::from_millis(150);
    for place in Place::all() {
        for (number, (all, own)) in (0..).zip([(short, None), (HOUR, Some(short))]) {
            let cache = place.cache(ROOM, all);
            let get = |made: &'static str| {
                let cache = &cache;
                async move { cache.get(key(number), own, async { Ok::<_, ()>(answer(made)) }).await.unwrap() }
            };
            for made in ["first", "second"] {
                let (given, found) = get(made).await;
                assert_eq!((given.value, found), (made.into(), Found::Made));
                assert_eq!(get("other").await.1, Found::Remembered, "{made}");
                tokio::time::sleep(short * 3 / 2).await;
            }
        }
    }
}

#[tokio::test]
async fn what_is_remembered_in_memory_keeps_to_its_room() {
    for place in Place::all() {
        let cache = place.cache(30_000, HOUR);
        for number in 1..200 {
            ask(&cache, number, "y".repeat(1_000)).await;
        }
        let end = Instant::now() + Duration::from_secs(20);
        while cache.size().1 > 30_000 {
            assert!(Instant::now() < end, "{:?} are kept", cache.size());
            cache.peek(&key(1)).await;
        }
    }
}

#[tokio::test]
async fn all_who_ask_at_once_are_given_what_one_of_them_made() {
    for place in Place::all() {
        let (cache, made) = (place.cache(ROOM, HOUR), AtomicU32::new(0));
        let asks = (0..16).map(|_| {
            let make = async {
                made.fetch_add(1, Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
                Ok::<_, ()>(answer(7))
            };
            cache.get(key(1), None, make)
        });
        let all = futures_util::future::join_all(asks).await;
        assert!(all.into_iter().all(|answered| answered.unwrap().0.value == 7.into()));
        assert_eq!(made.load(Relaxed), 1);
    }
}

#[tokio::test]
async fn two_engines_share_what_is_on_a_shelf() {
    for place in Place::all() {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        let step = Step::act(
            "count",
            function("count", move |call| match call.input.as_i64() {
                Some(1) => Ok(i64::from(counted.fetch_add(1, Relaxed)).into()),
                _ => Err(StepError::failed("not one").for_good()),
            }),
        );
        let cached = Step::new("kept", Kind::Cache(Arc::new(Cached::new(step))));
        let definition = caudal_flow::Definition::new("counts", Steps::new([cached]));
        let run = |engine: Engine, input: i64| {
            let definition = definition.clone();
            async move { engine.run(&definition, input.into(), RunOptions::default()).await }
        };
        let (one, other) = (place.engine(), place.engine());
        assert_eq!(run(one.clone(), 1).await.output(), Ok(0.into()));
        let again = run(one, 1).await;
        assert_eq!((again.entries[0].cached, again.output()), (true, Ok(0.into())));
        tokio::time::sleep(Duration::from_millis(200)).await;
        let there = run(other.clone(), 1).await;
        assert_eq!(there.entries[0].cached, place.shelved());
        assert_eq!(there.output(), Ok(i64::from(!place.shelved()).into()));
        for _ in 0..2 {
            assert!(run(other.clone(), 2).await.output().is_err(), "a failure is made each time");
        }
    }
}

#[tokio::test]
async fn what_stops_one_run_does_not_stop_another_that_waits_for_the_same() {
    for place in Place::all() {
        let spends = later("spends", |call| async move {
            tokio::time::sleep(Duration::from_millis(30)).await;
            let most = Usage { tokens_in: 10, ..Usage::NONE };
            call.reserve(most)?.settle(most);
            Ok("made".into())
        });
        let cached = Step::new("kept", Kind::Cache(Arc::new(Cached::new(Step::act("spends", spends)))));
        let definition = caudal_flow::Definition::new("spends", Steps::new([cached]));
        let engine = place.engine();
        let run = |tokens: Option<u64>| {
            let options = RunOptions { limits: Limits { tokens, ..Limits::default() }, ..RunOptions::default() };
            engine.run(&definition, Value::Null, options)
        };
        let (poor, rich) = futures_util::future::join(run(Some(1)), run(None)).await;
        assert!(poor.output().is_err_and(|error| error.to_string().contains("10 tokens")));
        assert_eq!(rich.output(), Ok("made".into()));
    }
}

#[tokio::test]
async fn a_step_sees_no_more_of_the_context_than_it_is_remembered_by() {
    for place in Place::all() {
        let names =
            function("names", |call| Ok(Value::list(call.context.iter().map(|(name, _)| Value::text(&**name)))));
        let mut cached = Cached::new(Step::act("names", names).with(|policy| policy.sink = Some("b".into())));
        cached.context = Some(vec!["a".into()]);
        let cached = Step::new("kept", Kind::Cache(Arc::new(cached)));
        let definition = caudal_flow::Definition::new("names", Steps::new([cached]));
        let engine = place.engine();
        for (context, after) in [
            (value!({"a": 1, "b": ["a"]}), value!({"a": 1, "b": ["a"]})),
            (value!({"a": 1, "b": 2, "c": 3}), value!({"a": 1, "b": ["a"], "c": 3})),
            (value!({"b": 2}), value!({"b": []})),
            (value!({"a": null}), value!({"a": null, "b": ["a"]})),
        ] {
            let context = context.as_map().cloned().unwrap();
            let ran = engine.run(&definition, 1.into(), RunOptions { context, ..RunOptions::default() }).await;
            assert_eq!(Value::Map(ran.context), after);
        }
    }
}

#[tokio::test]
async fn what_looks_at_other_steps_of_its_run_is_not_remembered() {
    let give =
        |name: &str, number: i64| Step::act(name, function(format!("give {number}"), move |_| Ok(number.into())));
    let look = |name: &'static str| {
        Step::act("look", function(format!("look {name}"), move |call| Ok(call.view().step(name).unwrap_or_default())))
    };
    let cached = |steps: Vec<Step>| {
        let within = Step::new("within", Kind::Sequence(Steps::new(steps)));
        Step::new("kept", Kind::Cache(Arc::new(Cached::new(within))))
    };
    // What it looks at, what it gives in runs where the step before it gave 1 and 2, and whether it is remembered.
    for (name, given, remembered) in [("before", [1, 2], false), ("inner", [7, 7], true), ("none", [0, 0], false)] {
        for place in Place::all() {
            let engine = place.engine();
            for (before, given) in [1, 2, 2].into_iter().zip([given[0], given[1], given[1]]) {
                let same = Step::act("same", function("same", |_| Ok("same".into())));
                let steps = [give("before", before), same, cached(vec![give("inner", 7), look(name)])];
                let definition = caudal_flow::Definition::new("looks", Steps::new(steps));
                let ran = engine.run(&definition, Value::Null, RunOptions::default()).await;
                let hit = ran.entries.iter().any(|entry| entry.cached);
                assert_eq!(ran.output().unwrap().as_i64().unwrap_or(0), given, "{name} after {before}");
                assert!(remembered || !hit, "{name}");
            }
        }
    }
}

#[derive(serde::Serialize, serde::Deserialize, Clone)]
struct Point {
    x: f64,
    names: std::collections::HashMap<String, u32>,
}

#[derive(serde::Serialize, serde::Deserialize, Clone)]
struct Lossy {
    #[serde(serialize_with = "nothing")]
    x: f64,
}

fn nothing<S: serde::Serializer>(_: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(f64::NAN)
}

#[tokio::test]
async fn a_value_of_rusts_is_of_one_sort_however_it_is_come_by() {
    let names = (0..9).map(|number| (format!("n{number}"), number)).collect();
    let point = Value::of(Point { x: 0.1, names });
    let lossy = Value::of(Lossy { x: 1.0 });
    for place in Place::all() {
        let cache = place.cache(ROOM, HOUR);
        for (number, (value, plain)) in (0..).zip([(&point, place.shelved()), (&lossy, false)]) {
            let sort = if plain { "object" } else { "native" };
            let made = value!([1]).as_list().unwrap().iter().chain([value]).cloned().collect::<Vec<_>>();
            for _ in 0..2 {
                let (given, _) = ask(&cache, number, made.clone()).await;
                assert_eq!(given.as_list().unwrap()[1].sort(), sort);
            }
        }
        let (given, _) = ask(&cache, 7, point.clone()).await;
        let given = given.to::<Point>().unwrap();
        assert_eq!((given.x, given.names.len()), (0.1, 9), "a typed step takes it either way");
    }
}
