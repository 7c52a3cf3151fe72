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
    Preset { name: "cpu", help: "the default: models on the CPU, with settings chosen by measurement", values: &[] },
    Preset {
        name: "low-memory",
        help: "small machines: one instance per model that uses all cores, small queues and buffers",
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
        help: "a thousand clients and more: long queues, many connections, more memory for both",
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
        help: "models on the GPU; refused if the loaded ONNX Runtime library does not support it",
        values: &[("providers", "cuda")],
    },
];

/// The preset called `name`.
pub(crate) fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}
