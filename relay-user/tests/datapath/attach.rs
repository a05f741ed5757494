//! Which mode the program is attached in, and what is never touched.

use relay_user::datapath::{DatapathMode, OpenError, Opened, open};

use crate::{
    foreign,
    network::{Host, INTERFACES, Network},
};

const NATIVE: u64 = 1;
const GENERIC: u64 = 2;

fn modes(network: &Network) -> [Option<u64>; 2] {
    INTERFACES.map(|interface| network.xdp(interface).map(|(mode, _)| mode))
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn auto_is_native_where_all_drivers_can_and_leaves_nothing_behind() {
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let mut opened = open(network.options(DatapathMode::Auto)).await.unwrap();
        assert_eq!((opened.mode, &opened.warnings[..]), (DatapathMode::XdpNative, &[][..]));
        let names: Vec<&str> = opened.interfaces.iter().map(|interface| interface.name.as_str()).collect();
        assert_eq!(names, INTERFACES);
        assert!(opened.interfaces.iter().all(|interface| interface.mode == DatapathMode::XdpNative));
        assert_eq!(modes(&network), [Some(NATIVE); 2]);
        opened.datapath.close();
        assert_eq!(modes(&network), [None; 2]);
        opened.datapath.close();
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn generic_is_generic_on_every_interface() {
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let opened = open(network.options(DatapathMode::XdpGeneric)).await.unwrap();
        assert_eq!((opened.mode, &opened.warnings[..]), (DatapathMode::XdpGeneric, &[][..]));
        assert_eq!(modes(&network), [Some(GENERIC); 2]);
        drop(opened);
        assert_eq!(modes(&network), [None; 2]);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn one_driver_without_native_xdp_makes_all_generic_and_is_named() {
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let mut options = network.options(DatapathMode::Auto);
        options.interfaces.push("lo".to_owned());
        let opened = open(options.clone()).await.unwrap();
        assert_eq!(opened.mode, DatapathMode::XdpGeneric);
        assert_eq!(opened.warnings, ["no native XDP on lo: its driver has none"]);
        assert_eq!(modes(&network), [Some(GENERIC); 2]);
        drop(opened);

        options.mode = DatapathMode::XdpNative;
        let error = open(options).await.unwrap_err().to_string();
        assert_eq!(error, "--datapath xdp-native is not possible: no native XDP on lo: its driver has none");
        assert_eq!(modes(&network), [None; 2]);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_program_that_is_already_there_is_named_and_left_alone() {
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let _foreign = foreign::attach("relc0", "cil_xdp_entry");
        let before = network.xdp("relc0").expect("attached");
        let expected = format!(
            "no XDP: relc0 already has XDP program \"cil_xdp_entry\" (id {}), which is left alone",
            before.1
        );

        let opened = open(network.options(DatapathMode::Auto)).await.unwrap();
        assert_eq!((opened.mode, &opened.warnings[..]), (DatapathMode::Userspace, &[expected.clone()][..]));
        assert!(opened.interfaces.is_empty());
        drop(opened);
        for mode in [DatapathMode::XdpNative, DatapathMode::XdpGeneric] {
            let error = open(network.options(mode)).await.unwrap_err();
            assert!(matches!(error, OpenError::Impossible { .. }), "{error}");
            assert!(error.to_string().ends_with(&expected), "{error}");
        }
        assert_eq!(network.xdp("relc0"), Some(before));
        assert_eq!(network.xdp("relp0"), None);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_missing_interface_is_an_error_that_names_it() {
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let mut options = network.options(DatapathMode::Auto);
        options.interfaces.push("eth77".to_owned());
        let error = open(options).await.unwrap_err();
        assert!(matches!(&error, OpenError::NoInterface { name } if name == "eth77"), "{error}");
        assert_eq!(modes(&network), [None; 2]);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn more_flows_than_there_is_memory_for_are_refused_with_the_key() {
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let mut options = network.options(DatapathMode::XdpNative);
        options.max_flows = 4_000_000_000;
        let error = open(options).await.unwrap_err().to_string();
        assert!(error.ends_with("no room for 4000000000 flows: lower max_flows"), "{error}");
        assert_eq!(modes(&network), [None; 2]);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn userspace_attaches_nothing() {
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let opened: Opened = open(network.options(DatapathMode::Userspace)).await.unwrap();
        assert_eq!((opened.mode, &opened.warnings[..]), (DatapathMode::Userspace, &[][..]));
        assert_eq!(modes(&network), [None; 2]);
    });
}
