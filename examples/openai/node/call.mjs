// The official OpenAI client with the relay as its base URL.
//
// usage: node call.mjs BASE_URL SPEECH_FILE     (BASE_URL ends in /v1; the client is found by NODE_PATH)
//
// Prints one line of JSON for each call.
import fs from "node:fs";
import { createRequire } from "node:module";

const { OpenAI } = createRequire(import.meta.url)("openai");
const [baseURL, speech] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "The cat sat. The dog barked." }];
const say = (call, facts) => console.log(JSON.stringify({ call, ...facts }));

const ids = [];
for await (const model of client.models.list()) ids.push(model.id);
say("models", { ids });
const answer = await client.chat.completions.create({ model: "lab-chat", messages });
say("chat", { text: answer.choices[0].message.content });
const pieces = [];
for await (const piece of await client.chat.completions.create({ model: "lab-chat", messages, stream: true })) {
  if (piece.choices[0]?.delta.content) pieces.push(piece.choices[0].delta.content);
}
say("chat stream", { pieces });
const vectors = await client.embeddings.create({ model: "embed-1", input: ["a", "b"], encoding_format: "float" });
say("embeddings", { lengths: vectors.data.map((one) => one.embedding.length) });
const picture = await client.images.generate({ model: "image-1", prompt: "a cat", response_format: "b64_json" });
say("image", { bytes: picture.data[0].b64_json.length });
const transcript = await client.audio.transcriptions.create({ model: "whisper-1", file: fs.createReadStream(speech) });
say("transcription", { text: transcript.text });
const kinds = new Set();
let text = "";
const file = fs.createReadStream(speech);
for await (const event of await client.audio.transcriptions.create({ model: "whisper-1", file, stream: true })) {
  kinds.add(event.type);
  text = event.text ?? text;
}
say("transcription stream", { kinds: [...kinds].sort(), text });
const spoken = await client.audio.speech.create({ model: "tts-1", voice: "alloy", input: "on monday", response_format: "wav" });
say("speech", { bytes: (await spoken.arrayBuffer()).byteLength, job: spoken.headers.get("x-relay-job-id") });
try {
  await client.chat.completions.create({ model: "nope", messages });
} catch (error) {
  say("unknown model", { status: error.status, code: error.code });
}
