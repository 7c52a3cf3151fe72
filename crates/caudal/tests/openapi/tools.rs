//! Tools that others read the document with: a validator, and generators of clients in Python and TypeScript.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use caudal_testkit::find_program;

use crate::{Place, place};

/// Media types that the generator of Python clients does not know.
const CONFIG: &str = "\
content_type_overrides:
  image/jpeg: application/octet-stream
  image/png: application/octet-stream
  image/webp: application/octet-stream
  image/svg+xml: application/octet-stream
  application/x-ndjson: application/octet-stream
";

/// Asks the server by a client that was generated.
const PYTHON_USE: &str = "
import sys
from caudal_api_client import AuthenticatedClient, Client
from caudal_api_client.api.health import get_health
from caudal_api_client.api.pictures import predict_picture
from caudal_api_client.api.admin import get_memory
from caudal_api_client.api.tensors import infer_tensors
from caudal_api_client.models import (
    Datatype, Error, HealthStatus, InferInput, InferRequest, KserveError, PictureForm,
)
from caudal_api_client.types import File

url, picture, token = sys.argv[1:]
client = Client(base_url=url)
assert get_health.sync(client=client).status == HealthStatus.HEALTHY
with open(picture, 'rb') as file:
    form = PictureForm(file=File(payload=file, file_name='bus.jpg'))
    found = predict_picture.sync('small', client=client, body=form, conf=0.5)
assert [box.class_ for box in found.detections] == ['bus', 'car', 'person', 'car'], found
assert all(0 <= box.x1 < box.x2 <= found.image_size.width for box in found.detections)
missing = predict_picture.sync('nobody', client=client, body=PictureForm(file=File(payload=b'x', file_name='x')))
assert isinstance(missing, Error) and missing.error.code == 'model_not_found', missing
tensor = InferInput(name='x', shape=[1, 4], datatype=Datatype.FP32, data=[1.0, 2.0, 3.0, 4.0])
answer = infer_tensors.sync('double', client=client, body=InferRequest(inputs=[tensor]))
assert answer.outputs[0].data == [2.0, 4.0, 6.0, 8.0], answer
missing = infer_tensors.sync('nobody', client=client, body=InferRequest(inputs=[tensor]))
assert isinstance(missing, KserveError) and missing.error.startswith('model_not_found: '), missing
memory = get_memory.sync(client=AuthenticatedClient(base_url=url, token=token))
assert memory is not None
print('used')
";

/// Uses the types that were generated as a program would.
const TYPESCRIPT_USE: &str = r#"
import type { components, operations, paths } from "./api";

type Answer = paths["/predict/{model}"]["post"]["responses"]["200"]["content"]["application/json"];
declare const answer: Answer;
const box: components["schemas"]["Detection"] | undefined = answer.detections?.[0];
export const left: number | undefined = box?.x1;
export const name: string | undefined = box?.class;
const priority: NonNullable<operations["predict_picture"]["parameters"]["query"]>["priority"] = "high";
// @ts-expect-error: there is no such priority
const wrong: NonNullable<operations["predict_picture"]["parameters"]["query"]>["priority"] = "urgent";
const event: components["schemas"]["NewEvent"] = { event_type: "NOTE", payload: { text: "Hola" } };
const input: components["schemas"]["InferRequest"] = {
  inputs: [{ name: "x", shape: [1, 4], datatype: "FP32", data: [1, 2, 3, 4] }],
};
declare const kserve: paths["/v2/models/{model}/infer"]["post"]["responses"]["4XX"]["content"]["application/json"];
export const sentence: string = kserve.error;
declare const refused: paths["/admin/memory"]["get"]["responses"]["401"]["content"]["application/json"];
export const code: string = refused.error.code;
declare const run: paths["/api/v1/pipelines/{name}/run"]["post"]["responses"]["200"]["content"]["application/json"];
export const step: string | undefined = run.steps[0]?.name;
export { priority, wrong, event, input };
"#;

/// The document of a server in a folder of its own.
fn document(place: &Place) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("openapi.json");
    fs::write(&file, place.server.get("/openapi.json").body).unwrap();
    (folder, file)
}

/// Python with the tools that `cargo xtask setup` brings.
fn python() -> Option<Command> {
    let folder = caudal_types::cache_dir().join("openapi/python");
    if !folder.join("openapi_python_client/__init__.py").is_file() || find_program(&["python3"]).is_none() {
        eprintln!("skipped: the tools of OpenAPI are missing; `cargo xtask setup` brings them");
        return None;
    }
    let mut command = Command::new("python3");
    let paths = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>();
    let paths = env::join_paths([folder.join("bin")].into_iter().chain(paths)).unwrap();
    command.env("PYTHONPATH", &folder).env("PATH", paths).env("NO_COLOR", "1");
    Some(command)
}

/// Runs a command that should succeed; what it printed.
fn good(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

#[test]
fn a_validator_accepts_the_document() {
    let Some(mut python) = python() else { return };
    let (_folder, file) = document(&place());
    let said = good(python.args(["-m", "openapi_spec_validator"]).arg(file));
    assert!(said.contains("OK"), "{said}");
}

#[test]
fn a_generated_python_client_asks_the_server() {
    let Some(mut generate) = python() else { return };
    let place = place();
    let (folder, file) = document(&place);
    let url = format!("http://{}", place.server.address());
    let (config, client) = (folder.path().join("config.yaml"), folder.path().join("client"));
    fs::write(&config, CONFIG).unwrap();
    generate.args(["-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning", "--path"]);
    let made = folder.path().join("client/caudal_api_client");
    fs::create_dir(&client).unwrap();
    good(generate.arg(file).arg("--config").arg(config).arg("--output-path").arg(&made));
    let mut used = python().unwrap();
    let picture = caudal_testkit::fixture_path("double_decker_bus.jpg");
    let token = place.server.admin_credential().unwrap();
    let said = good(used.current_dir(&client).args(["-c", PYTHON_USE, &url]).arg(picture).arg(token));
    assert_eq!(said, "used\n");
}

#[test]
fn generated_typescript_compiles() {
    let modules = caudal_types::cache_dir().join("openapi/node/node_modules");
    let tool = |path: &str| modules.join(path);
    if !tool("typescript/bin/tsc").is_file() || find_program(&["node"]).is_none() {
        return eprintln!("skipped: the tools of OpenAPI for Node are missing; `cargo xtask setup` brings them");
    }
    let (folder, file) = document(&place());
    let node = |script: &Path| {
        let mut command = Command::new("node");
        command.arg(script).current_dir(folder.path());
        command
    };
    good(node(&tool("openapi-typescript/bin/cli.js")).arg(file).args(["-o", "api.d.ts"]));
    fs::write(folder.path().join("use.ts"), TYPESCRIPT_USE).unwrap();
    let options = ["--noEmit", "--strict", "--noUncheckedIndexedAccess", "--lib", "es2022"];
    good(node(&tool("typescript/bin/tsc")).args(options).args(["api.d.ts", "use.ts"]));
    let types = fs::read_to_string(folder.path().join("api.d.ts")).unwrap();
    // Two types of the generator itself stand at the top level.
    let mut within = types.lines().filter(|line| line.starts_with(' '));
    assert!(!within.any(|line| line.contains("Record<string, never>")), "an object without a schema: {types}");
}
