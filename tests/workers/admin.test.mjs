// The admin API of the Workers against its own OpenAPI document, like tests/sdk/admin.test.mjs for the binary.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { conforms, python } from "../sdk/schemathesis.mjs";

const harness = join(dirname(fileURLToPath(import.meta.url)), "harness.mjs");

test("the admin API of the Workers matches its document", { skip: python ? false : "Python is missing" }, async () => {
  const env = { ...process.env, HOOKMILL_TEST_SECRETS: "{}", HOOKMILL_TEST_OUTBOUND: "" };
  const workers = spawn(process.execPath, [harness], { env, stdio: ["pipe", "pipe", "inherit"] });
  try {
    const [line] = await once(createInterface({ input: workers.stdout }), "line");
    const { admin, control } = JSON.parse(line);
    const token = `hookmill_${randomBytes(32).toString("base64url")}`;
    const hash = createHash("sha256").update(token).digest("hex");
    const sql = `INSERT INTO admin_tokens (name, hash, role, created_at) VALUES ('schemathesis', '${hash}', 'operate', 0)`;
    const kept = await fetch(`http://${control}/sql`, { method: "POST", body: JSON.stringify({ sql }) });
    assert.equal(kept.status, 200, await kept.text());
    await conforms(admin, token);
  } finally {
    workers.stdin.end();
    await once(workers, "exit");
  }
});
