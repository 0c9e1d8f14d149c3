// The usual Worker: what an experienced developer writes by hand for Stripe's subscriptions. The signature is checked by
// WebCrypto with a key that is imported once. The consumer writes a whole batch in one transaction, an event twice has no
// effect, and an older event does not overwrite a newer one. usual.sql has its tables.
const encoder = new TextEncoder();
const TOLERANCE_SECONDS = 300;

let key;
function hmacKey(secret) {
  key ??= crypto.subtle.importKey("raw", encoder.encode(secret), { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
  return key;
}

function bytes(hex) {
  const out = new Uint8Array(hex.length / 2);
  for (let i = 0; i < out.length; i++) out[i] = parseInt(hex.substr(2 * i, 2), 16);
  return out;
}

async function verified(header, body, secret) {
  if (!header) return false;
  let timestamp;
  const signatures = [];
  for (const part of header.split(",")) {
    const at = part.indexOf("=");
    const name = part.slice(0, at).trim();
    if (name === "t") timestamp = part.slice(at + 1);
    if (name === "v1") signatures.push(part.slice(at + 1));
  }
  if (!(Math.abs(Date.now() / 1000 - Number(timestamp)) <= TOLERANCE_SECONDS)) return false;
  const signed = encoder.encode(`${timestamp}.${body}`);
  for (const signature of signatures) {
    if (await crypto.subtle.verify("HMAC", await hmacKey(secret), bytes(signature), signed)) return true;
  }
  return false;
}

const milliseconds = (seconds) => (seconds == null ? null : seconds * 1000);
const flag = (value) => (value == null ? null : Number(value));
const json = (value) => (value == null ? null : JSON.stringify(value));

export default {
  async fetch(request, env) {
    if (request.method !== "POST") return new Response("POST only", { status: 405 });
    const body = await request.text();
    const header = request.headers.get("stripe-signature");
    if (!(await verified(header, body, env.STRIPE_WEBHOOK_SECRET))) return new Response("bad signature", { status: 400 });
    await env.EVENTS.send(body, { contentType: "text" });
    return Response.json({ accepted: 1 });
  },

  async queue(batch, env) {
    const seen = env.DB.prepare("INSERT OR IGNORE INTO stripe_events (id, type, created, received_at) VALUES (?, ?, ?, ?)");
    const subscription = env.DB.prepare(
      `INSERT INTO subscriptions (id, customer_id, status, price_id, quantity, currency, current_period_start,
         current_period_end, cancel_at_period_end, cancel_at, canceled_at, ended_at, trial_end, latest_invoice_id, livemode,
         metadata, created, deleted, updated_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET customer_id = excluded.customer_id, status = excluded.status,
         price_id = excluded.price_id, quantity = excluded.quantity, currency = excluded.currency,
         current_period_start = excluded.current_period_start, current_period_end = excluded.current_period_end,
         cancel_at_period_end = excluded.cancel_at_period_end, cancel_at = excluded.cancel_at,
         canceled_at = excluded.canceled_at, ended_at = excluded.ended_at, trial_end = excluded.trial_end,
         latest_invoice_id = excluded.latest_invoice_id, livemode = excluded.livemode, metadata = excluded.metadata,
         created = excluded.created, deleted = excluded.deleted, updated_at = excluded.updated_at
       WHERE excluded.updated_at >= subscriptions.updated_at`,
    );
    const removed = env.DB.prepare(
      `DELETE FROM subscription_items WHERE subscription_id = ?1 AND updated_at <= ?2
         AND id NOT IN (SELECT value FROM json_each(?3))`,
    );
    const item = env.DB.prepare(
      `INSERT INTO subscription_items (subscription_id, id, price_id, product_id, quantity, unit_amount, currency,
         interval, interval_count, current_period_start, current_period_end, metadata, created, updated_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (subscription_id, id) DO UPDATE SET price_id = excluded.price_id, product_id = excluded.product_id,
         quantity = excluded.quantity, unit_amount = excluded.unit_amount, currency = excluded.currency,
         interval = excluded.interval, interval_count = excluded.interval_count,
         current_period_start = excluded.current_period_start, current_period_end = excluded.current_period_end,
         metadata = excluded.metadata, created = excluded.created, updated_at = excluded.updated_at
       WHERE excluded.updated_at >= subscription_items.updated_at`,
    );
    const now = Date.now();
    const statements = [];
    for (const message of batch.messages) {
      const event = JSON.parse(message.body);
      if (event.type.startsWith("customer.subscription.")) {
        const object = event.data.object;
        const deleted = event.type === "customer.subscription.deleted";
        const items = deleted ? [] : object.items.data;
        const first = object.items.data[0];
        statements.push(
          subscription.bind(
            object.id,
            object.customer,
            object.status,
            first?.price.id ?? null,
            first?.quantity ?? null,
            object.currency,
            milliseconds(first?.current_period_start ?? object.current_period_start),
            milliseconds(first?.current_period_end ?? object.current_period_end),
            flag(object.cancel_at_period_end),
            milliseconds(object.cancel_at),
            milliseconds(object.canceled_at),
            milliseconds(object.ended_at),
            milliseconds(object.trial_end),
            object.latest_invoice,
            flag(object.livemode),
            json(object.metadata),
            milliseconds(object.created),
            flag(deleted),
            event.created,
          ),
          removed.bind(object.id, event.created, JSON.stringify(items.map(({ id }) => id))),
        );
        for (const { id, price, quantity, metadata, created, ...period } of items) {
          statements.push(
            item.bind(
              object.id,
              id,
              price.id,
              price.product,
              quantity ?? null,
              price.unit_amount,
              price.currency,
              price.recurring?.interval ?? null,
              price.recurring?.interval_count ?? null,
              milliseconds(period.current_period_start),
              milliseconds(period.current_period_end),
              json(metadata),
              milliseconds(created),
              event.created,
            ),
          );
        }
      }
      statements.push(seen.bind(event.id, event.type, event.created, now));
    }
    await env.DB.batch(statements);
  },
};
