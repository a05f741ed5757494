//! What bpf-linker is to make of the program: instructions of BPF v3 (32-bit arithmetic, compare-and-swap), and loads
//! and stores of any alignment. Header fields lie at odd multiples of 2; byte by byte they would cost 10 ns a packet.
//! The kernel takes such accesses where the machine does (`CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS`: x86-64, arm64).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "bpf") {
        println!("cargo::rustc-link-arg=--cpu-features=+allows-misaligned-mem-access");
    }
}
