//! The configuration file: schema with source positions, checks, lowering to the engine.
