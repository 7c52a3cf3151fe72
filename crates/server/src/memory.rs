//! Who holds memory here, and who can give some back.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use caudal_memory::{CleanupReason, MemoryConsumer};
use caudal_tasks::Catalog;

use crate::app::App;

const MIB: u64 = 1 << 20;

/// Joins what the server holds to the watch over memory.
pub(crate) fn join(app: &Arc<App>) {
    let held: Weak<App> = Arc::downgrade(app);
    app.memory.register_consumers(move || held.upgrade().map(|app| holders(&app)).unwrap_or_default());
    let (asked, told) = (Arc::clone(&app.bodies), Arc::clone(&app.bodies));
    app.memory.limit_arrivals(move || asked.arrived(), move |fits| told.bound(fits));
    // Models first: what their runs kept is free only then, and what both gave to the allocator goes back last.
    let catalog = Arc::clone(&app.catalog);
    app.memory.register_hook("idle_models", move |ask| rest(&catalog, ask.idle, ask.why));
    let catalog = Arc::clone(&app.catalog);
    app.memory.register_hook("run_arena", move |_| shrink(&catalog));
}

fn rest(catalog: &Catalog, idle: Duration, why: CleanupReason) -> String {
    let rested = catalog.rest_unused(
        idle,
        match why {
            CleanupReason::Pressure => "memory is short",
            CleanupReason::Requested => "an operator asked for a cleanup of memory",
        },
    );
    if rested.is_empty() {
        return format!("no model has been idle for {} s", idle.as_secs());
    }
    let told: Vec<String> = rested.iter().map(|(name, bytes)| format!("{name} ({} MiB)", bytes / MIB)).collect();
    format!("put to rest until they are asked for: {}", told.join(", "))
}

fn shrink(catalog: &Catalog) -> String {
    match catalog.shrink_arena() {
        Ok(Some((before, after))) => {
            format!("what is kept for runs went from {} to {} MiB", before / MIB, after / MIB)
        }
        Ok(None) => "the backend does not tell what it keeps for runs".to_owned(),
        Err(error) => format!("what is kept for runs stays as it is: {error}"),
    }
}

fn holders(app: &App) -> Vec<MemoryConsumer> {
    let (stay, settings) = (app.catalog.stay(), app.settings());
    let models = app.catalog.now().ready().map(|model| model.memory.bytes()).sum();
    let (pixels, bodies) = (app.pictures.memory(), &app.bodies);
    let bounded =
        |what, held, limit, setting| MemoryConsumer { what, held, idle: 0, limit, setting, idle_setting: None };
    vec![
        MemoryConsumer {
            idle: app.catalog.idle_bytes(settings.memory.rest_idle).unwrap_or(0),
            idle_setting: stay.idle.is_none().then_some("idle_unload_secs"),
            ..bounded("models", models, stay.memory, "model_memory_mb")
        },
        bounded("uploads", bodies.taken(), Some(settings.max_body_memory), "max_body_memory_mb"),
        bounded("pictures", pixels.taken(), Some(pixels.total()), "max_pixel_memory_mb"),
    ]
}
