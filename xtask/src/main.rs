//! `cargo xtask`: Turnpike's developer commands.

fn main() {
    let lab = xtask::lab::Lab::create().unwrap();
    lab.link_host().unwrap();
    println!("{lab:?}");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let mut a = std::env::args();
    if a.nth(1).is_some() { std::thread::sleep(std::time::Duration::from_secs(1000)); }
}
