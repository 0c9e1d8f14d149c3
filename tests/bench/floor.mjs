// The floor: moves the body to the queue, and one row per event to D1 in one statement per batch. It verifies nothing,
// reads nothing, and applies no event once.
export default {
  async fetch(request, env) {
    await env.EVENTS.send(await request.text(), { contentType: "text" });
    return new Response('{"accepted":1}');
  },
  async queue(batch, env) {
    const rows = JSON.stringify(batch.messages.map((message) => [message.id, message.body.length]));
    await env.DB.prepare(
      "INSERT INTO floor (id, length) SELECT value ->> 0, value ->> 1 FROM json_each(?1) WHERE true ON CONFLICT DO NOTHING",
    )
      .bind(rows)
      .run();
  },
};
