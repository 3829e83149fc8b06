//! What an image's config says about running it, with what the container says.

use coracle_runtime::ImageConfig;

/// The command line of a container, by Kubernetes' rule: `command` replaces entry point and arguments, `args` the arguments.
///
/// # Errors
/// There is none.
pub fn command_line(image: &ImageConfig, command: &[String], args: &[String]) -> Result<Vec<String>, String> {
    let line = match (command.is_empty(), args.is_empty()) {
        (false, _) => [command, args].concat(),
        (true, false) => [image.entrypoint.as_slice(), args].concat(),
        (true, true) => [image.entrypoint.as_slice(), &image.cmd].concat(),
    };
    if line.is_empty() { Err("no command specified".into()) } else { Ok(line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_and_args_replace_by_kubernetes_rule() {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let image = ImageConfig { entrypoint: list("entry point"), cmd: list("c m d"), ..ImageConfig::default() };
        let line = |command: &str, args: &str| command_line(&image, &list(command), &list(args)).unwrap().join(" ");
        assert_eq!(line("", ""), "entry point c m d");
        assert_eq!(line("", "x y"), "entry point x y");
        assert_eq!(line("run", ""), "run");
        assert_eq!(line("run", "x"), "run x");
        assert!(command_line(&ImageConfig::default(), &[], &[]).is_err());
    }
}
