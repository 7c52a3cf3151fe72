//! OTLP attributes, resource and instrumentation scope.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
};

pub(crate) fn string_attribute(key: &str, value: impl Into<String>) -> KeyValue {
    key_value(key, Value::StringValue(value.into()))
}

pub(crate) fn int_attribute(key: &str, value: u64) -> KeyValue {
    key_value(key, Value::IntValue(value.min(i64::MAX as u64) as i64))
}

fn key_value(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// The resource with `attributes`, which describes this process.
pub(crate) fn otlp_resource(attributes: &[(String, String)]) -> Resource {
    let attributes = attributes.iter().map(|(name, value)| string_attribute(name, value)).collect();
    Resource { attributes, ..Resource::default() }
}

/// The instrumentation scope: this program.
pub(crate) fn instrumentation_scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "caudal".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}
