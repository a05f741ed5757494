//! The realm, and who may allocate.

use std::collections::HashSet;

use super::{
    super::{Given, Origin, Realm, User},
    Resolver,
};

impl Resolver<'_> {
    pub(super) fn realm(&mut self, realm: Option<Given<Realm>>) -> String {
        if let Some(realm) = realm {
            return realm.value.0;
        }
        match self.host.name.parse::<Realm>() {
            Ok(realm) => {
                self.default_taken("realm", [realm.0.as_str()]);
                realm.0
            }
            Err(error) => {
                let problem = format!("the host name cannot be the realm: {error}; name one with --realm");
                self.refuse(Origin::Default, "realm", Some(self.host.name.clone()), problem);
                String::new()
            }
        }
    }

    pub(super) fn users(&mut self, users: Vec<Given<User>>) -> Vec<User> {
        if users.is_empty() {
            self.refuse(
                Origin::Default,
                "users",
                None,
                "no credentials, so nobody could be served: give one with --user NAME:PASSWORD, or write \
                 NAME = \"PASSWORD\" into the [users] table of the configuration (`openssl rand -hex 16` makes a \
                 password)",
            );
        }
        let mut names = HashSet::new();
        for Given { value, origin } in &users {
            if !names.insert(&value.name) {
                let problem = "this user is there twice: remove one of them";
                self.refuse(origin.clone(), "users", Some(value.name.clone()), problem);
            }
        }
        users.into_iter().map(|user| user.value).collect()
    }
}
