use crate::config::{Config, parse};

fn read(text: &str) -> Config {
    parse(text, &|_| None).unwrap()
}

#[test]
fn prefixes_are_read_from_tables_and_from_a_list() {
    let tables = "[sync]\ndatacenters = [\"a\", \"b\"]\n[[sync.prefix]]\nprefix = \"x/\"\nhome = \"a\"\n\
                  [[sync.prefix]]\nprefix = \"y/\"\nhome = \"b\"\nmode = \"journaled\"\n";
    let list = "[sync]\ndatacenters = [\"a\", \"b\"]\nprefix = [{ prefix = \"y/\", home = \"b\" }, \
                { prefix = \"x/\", home = \"a\" }]\n";
    let sync = read(tables).sync;
    assert_eq!(sync, read(list).sync);
    assert_eq!(sync.prefixes.of_key("y/k").unwrap().home.as_str(), "b");
    assert_eq!(sync.home_of_sessions(), None);
}

#[test]
fn the_only_home_of_prefixes_is_that_of_sessions() {
    let sync = read("[sync]\nenabled = true\ndatacenters = [\"a\", \"b\"]\nprefix = [{ prefix = \"x/\", home = \"b\" }]\n").sync;
    assert_eq!(sync.home_of_sessions().unwrap().as_str(), "b");
    let sync = read("[sync]\nenabled = true\ndatacenters = [\"a\", \"b\"]\nsessions_home = \"a\"\nprefix = [{ prefix = \"x/\", home = \"b\" }]\n").sync;
    assert_eq!(sync.home_of_sessions().unwrap().as_str(), "a");
}

#[test]
fn an_advertised_address_may_have_a_port() {
    let advertised = |text: &str| read(&format!("sync.advertise = \"{text}\"")).sync.advertise.unwrap();
    assert_eq!((advertised("10.0.0.7").port, advertised("[::1]:7").port), (None, Some(7)));
}
