//! Load generators and comparisons. For now only the criterion benches under `benches/`.
