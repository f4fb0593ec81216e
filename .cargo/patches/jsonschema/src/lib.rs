//! Empty stand-in: rust-ocpp depends on `jsonschema` and never calls it.
