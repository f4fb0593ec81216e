//! A network of its own for a process, with cables to ours that can be pulled (root, and Debian's `iproute2`).
//!
//! A pulled cable is what a dead modem is: nothing passes, nothing is refused, and both ends find out by their own timers.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::process::Recipe;

/// Their names: this and our process id. So what a killed run left can be told from what runs.
const PREFIX: &str = "siteward-";

/// The nets of four addresses in 198.18.0.0/15, and how many they are.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const NETS: u32 = 1 << 15;

/// Such a network. Dropping it removes it, with its cables, as soon as nobody runs in it any more.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

/// A cable between it and ours.
#[derive(Debug)]
pub struct Cable {
    device: String,
    /// The address of our end.
    pub near: Ipv4Addr,
    /// The address of the other end.
    pub far: Ipv4Addr,
}

impl Namespace {
    /// Makes one, and removes those whose maker was killed.
    ///
    /// # Errors
    /// If that is not allowed, or `ip` is missing.
    pub fn new() -> Result<Self, String> {
        for name in ip(&["netns", "list"])?.lines().filter_map(|line| line.split_whitespace().next()) {
            let maker = name.strip_prefix(PREFIX).and_then(|pid| pid.parse::<u32>().ok());
            if maker.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                ip(&["netns", "delete", name])?;
            }
        }
        let name = format!("{PREFIX}{}", std::process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        namespace.inside(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Lays the first cable (0) or the second one (1): a net of two addresses from those that are kept for tests of networks (RFC 2544), which no
    /// machine has by itself (those for examples, RFC 5737, are seen on virtual machines), and no other run that goes on beside.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn cable(&self, number: u8) -> Result<Cable, String> {
        let net = (std::process::id() * 2 + u32::from(number)) % NETS;
        let address = |end: u32| Ipv4Addr::from(u32::from(FIRST) + net * 4 + end);
        let (near, far) = (address(1), address(2));
        let (device, other) = (format!("sw{number}n{}", std::process::id()), format!("far{number}"));
        ip(&["link", "add", &device, "type", "veth", "peer", "name", &other, "netns", &self.name])?;
        let cable = Cable { device, near, far };
        ip(&["address", "add", &format!("{near}/30"), "dev", &cable.device])?;
        cable.plug(true)?;
        self.inside(&["address", "add", &format!("{far}/30"), "dev", &other])?;
        self.inside(&["link", "set", &other, "up"])?;
        Ok(cable)
    }

    /// Has what the recipe names run in it.
    #[must_use]
    pub fn around(&self, mut recipe: Recipe) -> Recipe {
        let before = ["netns", "exec", &self.name].map(OsString::from);
        let program = std::mem::replace(&mut recipe.program, PathBuf::from("ip")).into_os_string();
        recipe.arguments.splice(0..0, before.into_iter().chain([program]));
        recipe
    }

    fn inside(&self, arguments: &[&str]) -> Result<String, String> {
        ip(&[&["-n", &self.name], arguments].concat())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The next one removes it.
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

impl Cable {
    /// Plugs our end in, or pulls it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn plug(&self, plugged: bool) -> Result<(), String> {
        ip(&["link", "set", &self.device, if plugged { "up" } else { "down" }]).map(|_| ())
    }
}

fn ip(arguments: &[&str]) -> Result<String, String> {
    let said =
        |text: &str| format!("ip {}: {text} (a network of its own needs root and iproute2)", arguments.join(" "));
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| said(&error.to_string()))?;
    if !output.status.success() {
        return Err(said(String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_run_inside_by_ip() {
        let namespace = Namespace { name: "siteward-0-that-is-not-there".to_owned() };
        let recipe = Recipe::new(Path::new("/usr/bin/siteward"), &["run"], Path::new("log"));
        let inside = namespace.around(recipe);
        assert_eq!(inside.program, Path::new("ip"));
        assert_eq!(
            inside.arguments,
            ["netns", "exec", &namespace.name, "/usr/bin/siteward", "run"].map(OsString::from)
        );
    }
}
