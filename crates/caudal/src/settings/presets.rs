//! Settings that go together, under one name.

/// A name for a way to run, and what it sets where nobody says otherwise.
#[derive(Debug)]
pub(crate) struct Preset {
    pub(crate) name: &'static str,
    /// For whom it is.
    pub(crate) help: &'static str,
    pub(crate) values: &'static [(&'static str, &'static str)],
}

pub(crate) const PRESETS: &[Preset] = &[
    Preset {
        name: "cpu",
        help: "most: models on the processor, planned by measuring, as without a preset",
        values: &[],
    },
    Preset {
        name: "low-memory",
        help: "small machines: one copy of each model, whose runs share all cores, and small queues and buffers",
        values: &[
            ("instances", "1"),
            ("max_queue_size", "32"),
            ("max_queue_mb", "64"),
            ("max_images", "16"),
            ("max_image_megapixels", "24"),
            // As much as one body may take of the memory for all.
            ("max_file_size_mb", "48"),
            ("max_body_memory_mb", "64"),
            ("max_pixel_memory_mb", "256"),
            ("concurrency_limit", "256"),
            ("max_connections", "1024"),
        ],
    },
    Preset {
        name: "many-users",
        help: "a thousand clients and more: long queues, many connections, memory for them",
        values: &[
            ("max_queue_size", "1024"),
            ("max_queue_mb", "1024"),
            ("max_body_memory_mb", "1024"),
            ("max_pixel_memory_mb", "1024"),
            ("concurrency_limit", "8192"),
            ("max_connections", "65536"),
            ("backlog", "16384"),
        ],
    },
    Preset {
        name: "gpu",
        help: "models on the graphics card, and refused where the library that is loaded has nothing for one",
        values: &[("providers", "cuda")],
    },
];

/// The preset called `name`.
pub(crate) fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}
