//! Fetches what building and running need and a fresh machine lacks. What is there already is left alone, so a
//! second time takes no time.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use caudal_types::{ONNXRUNTIME_VERSION, OPENVINO_ONNXRUNTIME_VERSION, cache_dir, cached_onnxruntime, cached_openvino};

use crate::say::{self, Result, ask, root, step};

/// What is needed to build, as variables for cargo.
#[derive(Debug, Default)]
pub(crate) struct Tools {
    variables: Vec<(&'static str, PathBuf)>,
}

impl Tools {
    /// Lets `command` find the tools.
    pub(crate) fn equip<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.envs(self.variables.iter().map(|(name, value)| (name, value)))
    }
}

/// Sets everything up, and what tests are skipped without.
pub(crate) fn tests() -> Result<Tools> {
    debian_packages(&missing(&FOR_TESTS))?;
    run()
}

/// Sets everything up.
pub(crate) fn run() -> Result<Tools> {
    let mut tools = Tools::default();
    debian_packages(&missing(&PACKAGES))?;
    forget_builds_without_nasm()?;
    if let Some(cmake) = cmake()? {
        tools.variables.push(("CMAKE", cmake));
    }
    onnxruntime()?;
    // Only tests need it, and they say so where it is missing.
    if let Err(reason) = h5py() {
        eprintln!("  h5py is missing, tests of archives beside it are skipped: {reason}");
    }
    if let Err(reason) = openapi_python().and_then(|()| openapi_node()) {
        eprintln!("  tools of OpenAPI are missing, tests with them are skipped: {reason}");
    }
    Ok(tools)
}

/// A program that comes from a Debian package.
struct Package {
    program: &'static str,
    package: &'static str,
    /// Whether nothing can be built without it.
    needed: bool,
    /// What is missing without it.
    without: &'static str,
}

const PACKAGES: [Package; 4] = [
    Package { program: "cc", package: "build-essential", needed: true, without: "C sources cannot be compiled" },
    Package { program: "make", package: "make", needed: true, without: "the allocator cannot be built" },
    Package {
        program: "nasm",
        package: "nasm",
        needed: false,
        without: "JPEGs are decoded without vector instructions, about three times slower",
    },
    Package { program: "ffmpeg", package: "ffmpeg", needed: false, without: "films are not cut or encoded" },
];

const FOR_TESTS: [Package; 4] = [
    Package {
        program: "pg_ctlcluster",
        package: "postgresql",
        needed: false,
        without: "tests of the store on PostgreSQL are skipped",
    },
    Package {
        program: "nginx",
        package: "nginx-light",
        needed: false,
        without: "tests behind nginx, and of commands over TLS, are skipped",
    },
    Package { program: "haproxy", package: "haproxy", needed: false, without: "tests behind HAProxy are skipped" },
    Package { program: "caddy", package: "caddy", needed: false, without: "tests behind Caddy are skipped" },
];

fn debian_packages(missing: &[&'static Package]) -> Result {
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|package| package.package).collect();
    let is_root = ask("id", &["-u"]).is_some_and(|id| id.trim() == "0");
    if is_root && ask("apt-get", &["--version"]).is_some() {
        step(&format!("installing {} from Debian", names.join(", ")));
        let apt = |arguments: &[&str]| {
            let mut command = Command::new("apt-get");
            say::run(command.args(["-q", "-y"]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
        };
        let done = apt(&["update"]).and_then(|()| apt(&[&["install", "--no-install-recommends"], &names[..]].concat()));
        if done.is_ok() {
            return Ok(());
        }
    }
    let command = format!("sudo apt-get install --no-install-recommends {}", names.join(" "));
    for package in missing {
        eprintln!("  {} is missing: {}", package.program, package.without);
    }
    eprintln!("  to have all of it, type:\n    {command}");
    match missing.iter().find(|package| package.needed && !installed(package)) {
        Some(package) => Err(format!("{} is needed to build; type: {command}", package.program)),
        None => Ok(()),
    }
}

fn missing(packages: &'static [Package]) -> Vec<&'static Package> {
    packages.iter().filter(|package| !installed(package)).collect()
}

/// What was built without NASM does not notice that it has come: it is built anew.
fn forget_builds_without_nasm() -> Result {
    let mark = say::target().join("built-without-nasm");
    if missing(&PACKAGES).iter().any(|package| package.program == "nasm") {
        let made = fs::create_dir_all(say::target()).and_then(|()| fs::write(&mark, ""));
        return made.map_err(|error| format!("{} cannot be written: {error}", mark.display()));
    }
    if mark.is_file() {
        step("NASM has come: libjpeg-turbo is built anew");
        for profile in ["dev", "release"] {
            let packages = ["clean", "--profile", profile, "-p", "turbojpeg-sys", "-p", "caudal-vision"];
            say::run(say::cargo().args(packages))?;
        }
        fs::remove_file(&mark).map_err(|error| format!("{} cannot be removed: {error}", mark.display()))?;
    }
    Ok(())
}

fn installed(package: &Package) -> bool {
    // Only x86's vector instructions are written in NASM's language.
    if package.program == "nasm" && !cfg!(target_arch = "x86_64") {
        return true;
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(package.program).is_file())
}

fn pip() -> Result<Command> {
    let mut command = Command::new("python3");
    command.args(["-m", "pip"]);
    if ask("python3", &["-m", "pip", "--version"]).is_none() {
        return Err("Python's pip is needed; type: sudo apt-get install python3-pip".to_owned());
    }
    Ok(command)
}

/// The oldest CMake that builds HDF5.
const CMAKE: (u32, u32) = (3, 26);

fn has_cmake() -> bool {
    let says = ask("cmake", &["--version"]).unwrap_or_default();
    let mut numbers = says.split_whitespace().nth(2).unwrap_or_default().split('.').map_while(|part| part.parse().ok());
    (numbers.next(), numbers.next()) >= (Some(CMAKE.0), Some(CMAKE.1))
}

/// CMake: the machine's, or the one from PyPI, whose path is returned.
fn cmake() -> Result<Option<PathBuf>> {
    if env::var_os("CMAKE").is_some() || has_cmake() {
        return Ok(None);
    }
    let folder = cache_dir().join("cmake");
    let program = folder.join("cmake/data/bin/cmake");
    if !program.is_file() {
        step("fetching CMake from PyPI");
        let mut command = pip()?;
        command.args(["install", "--quiet", "--no-deps", "--require-hashes", "--upgrade", "--target"]);
        say::run(command.arg(&folder).arg("-r").arg(root().join("xtask/requirements/cmake.txt")))?;
    }
    Ok(Some(program))
}

/// h5py with the filters that it has not itself, for whoever runs Python with it in the path.
fn h5py() -> Result {
    let folder = cache_dir().join("h5py");
    if folder.join("h5py/__init__.py").is_file() {
        return Ok(());
    }
    step("fetching h5py from PyPI");
    install_python(&folder, "h5py.txt")
}

/// The validator of OpenAPI documents and the generator of Python clients, for tests.
fn openapi_python() -> Result {
    let folder = cache_dir().join("openapi/python");
    if folder.join("openapi_python_client/__init__.py").is_file() {
        return Ok(());
    }
    step("fetching the tools of OpenAPI from PyPI");
    install_python(&folder, "openapi.txt")
}

/// The generator of TypeScript types and the compiler, for tests.
fn openapi_node() -> Result {
    let folder = cache_dir().join("openapi/node");
    if folder.join("node_modules/typescript/bin/tsc").is_file() {
        return Ok(());
    }
    if ask("npm", &["--version"]).is_none() {
        return Err("npm is not installed (Debian: npm)".to_owned());
    }
    step("fetching the tools of OpenAPI from npm");
    fs::create_dir_all(&folder).map_err(|error| format!("{} cannot be created: {error}", folder.display()))?;
    for name in ["package.json", "package-lock.json"] {
        let from = root().join("xtask/requirements/openapi").join(name);
        fs::copy(&from, folder.join(name)).map_err(|error| format!("{} cannot be copied: {error}", from.display()))?;
    }
    let mut command = Command::new("npm");
    command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]);
    say::run(command.current_dir(&folder))
}

/// Installs wheels with pinned hashes into `folder`, for those who run Python with it in the path.
fn install_python(folder: &Path, requirement: &str) -> Result {
    let mut command = pip()?;
    command.args([
        "install",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
        "--upgrade",
        "--target",
    ]);
    say::run(command.arg(folder).arg("-r").arg(root().join("xtask/requirements").join(requirement)))
}

/// The SHA-256 of the library within the wheel, for each kind of processor; the wheel's own is pip's to check.
const LIBRARIES: [(&str, &str); 2] = [
    ("x86_64", "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3"),
    ("aarch64", "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467"),
];

/// ONNX Runtime's shared library, out of the official wheel.
fn onnxruntime() -> Result {
    let target = cached_onnxruntime();
    let own = env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    if target.is_file() || own.is_some_and(|library| library.is_file()) {
        return Ok(());
    }
    let arch = env::consts::ARCH;
    let Some((_, expected)) = LIBRARIES.iter().find(|(known, _)| *known == arch) else {
        return Err(format!("there is no ONNX Runtime for {arch} here; point ORT_DYLIB_PATH at a libonnxruntime.so"));
    };
    step(&format!("fetching ONNX Runtime {ONNXRUNTIME_VERSION} from PyPI"));
    let folder = target.parent().ok_or("the cache has no folder")?;
    let work = cache_dir().join(format!("onnxruntime.{}", std::process::id()));
    let fetched = fetch_wheel(&work, arch, "onnxruntime.txt").and_then(|wheel| unpack(&wheel, &work, expected));
    let moved = fetched.and_then(|library| {
        fs::create_dir_all(folder).map_err(|error| format!("{} cannot be created: {error}", folder.display()))?;
        // Renamed into place, so that nobody ever sees half a library.
        fs::rename(library, &target).map_err(|error| format!("{} cannot be written: {error}", target.display()))
    });
    let _ = fs::remove_dir_all(&work);
    moved
}

/// What of the wheel ONNX Runtime needs to run models on OpenVINO, on the processor; all lie in one folder.
const OPENVINO_LIBRARIES: [&str; 7] = [
    "libonnxruntime_providers_openvino.so",
    "libonnxruntime_providers_shared.so",
    "libopenvino.so.2541",
    "libopenvino_intel_cpu_plugin.so",
    "libopenvino_onnx_frontend.so.2541",
    "libtbb.so.12",
    "libtbbmalloc.so",
];

/// ONNX Runtime with OpenVINO's provider, beside the plain one; gives the library to be named by `onnxruntime_library`.
pub(crate) fn openvino() -> Result<PathBuf> {
    let target = cached_openvino();
    if target.is_file() {
        return Ok(target);
    }
    if env::consts::ARCH != "x86_64" {
        return Err(format!("PyPI has no ONNX Runtime with OpenVINO for {}", env::consts::ARCH));
    }
    step(&format!("fetching ONNX Runtime {OPENVINO_ONNXRUNTIME_VERSION} with OpenVINO from PyPI"));
    let folder = target.parent().ok_or("the cache has no folder")?;
    let work = cache_dir().join(format!("onnxruntime-openvino.{}", std::process::id()));
    let done = fetch_wheel(&work, "x86_64", "onnxruntime-openvino.txt").and_then(|wheel| {
        say::run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(&work))?;
        let (from, kept) = (work.join("onnxruntime/capi"), work.join("kept"));
        let keep = |name: &str, as_name: &str| fs::rename(from.join(name), kept.join(as_name));
        fs::create_dir_all(&kept)
            .and_then(|()| keep(&format!("libonnxruntime.so.{OPENVINO_ONNXRUNTIME_VERSION}"), "libonnxruntime.so"))
            .and_then(|()| OPENVINO_LIBRARIES.iter().try_for_each(|name| keep(name, name)))
            .and_then(|()| fs::rename(&kept, folder))
            .map_err(|error| format!("{} cannot be filled: {error}", folder.display()))
    });
    let _ = fs::remove_dir_all(&work);
    done.map(|()| target)
}

fn fetch_wheel(work: &Path, arch: &str, requirement: &str) -> Result<PathBuf> {
    let mut command = pip()?;
    command.args(["download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--progress-bar", "on"]);
    // The library is the same in the wheel of every Python, so one wheel serves all.
    command.args(["--implementation", "cp", "--python-version", "311", "--abi", "cp311"]);
    command.args(["--platform", &format!("manylinux_2_28_{arch}"), "--dest"]).arg(work);
    say::run(command.arg("-r").arg(root().join("xtask/requirements").join(requirement)))?;
    let files = fs::read_dir(work).map_err(|error| format!("{} cannot be read: {error}", work.display()))?;
    let wheel = files.flatten().map(|file| file.path()).find(|path| path.extension().is_some_and(|end| end == "whl"));
    wheel.ok_or_else(|| "pip fetched no wheel".to_owned())
}

fn unpack(wheel: &Path, work: &Path, expected: &str) -> Result<PathBuf> {
    say::run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(work))?;
    let library = work.join(format!("onnxruntime/capi/libonnxruntime.so.{ONNXRUNTIME_VERSION}"));
    let sum = ask("sha256sum", &[&library.to_string_lossy()]).unwrap_or_default();
    match sum.split_whitespace().next() {
        Some(sum) if sum == expected => Ok(library),
        _ => Err(format!("{} is not the library it should be: its checksum differs", library.display())),
    }
}
