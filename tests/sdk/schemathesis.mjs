// Runs schemathesis: valid and invalid requests to the admin API.
import { execFile } from "node:child_process";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

// The environment of `cargo xtask test`, which reports a missing one itself.
export const python = process.env.HOOKMILL_TEST_PYTHON;

const config = join(dirname(fileURLToPath(import.meta.url)), "python/schemathesis.toml");

export function conforms(address, token) {
  const document = `http://${address}/admin/api/v1/openapi.json`;
  const args = ["-I", "-m", "schemathesis.cli", "--config-file", config, "run", document];
  args.push("--header", `Authorization: Bearer ${token}`, "--phases", "examples,coverage,fuzzing", "--seed", "1", "--no-color");
  return new Promise((resolve, reject) => {
    // It writes files into its working directory, from which `-I` imports nothing.
    execFile(python, args, { cwd: tmpdir(), maxBuffer: 64 * 1024 * 1024 }, (error, stdout, stderr) => {
      const { groups } = stdout.match(/(?<cases>\d+) generated/) ?? {};
      if (error || !(Number(groups?.cases) > 100)) return reject(new Error(`${stdout}\n${stderr}`));
      console.log(stdout.slice(stdout.indexOf("= SUMMARY =")));
      resolve();
    });
  });
}
