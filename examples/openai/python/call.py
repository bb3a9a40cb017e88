"""The official OpenAI client with the relay as its base URL.

usage: call.py BASE_URL SPEECH_FILE     (BASE_URL ends in /v1)

Prints one line of JSON for each call.
"""

import json
import sys

from openai import APIStatusError, OpenAI

base_url, speech = sys.argv[1:]
client = OpenAI(base_url=base_url, api_key="none", max_retries=0)
messages = [{"role": "user", "content": "The cat sat. The dog barked."}]


def say(call, **facts):
    print(json.dumps({"call": call, **facts}), flush=True)


say("models", ids=[model.id for model in client.models.list()])
answer = client.chat.completions.create(model="lab-chat", messages=messages)
say("chat", text=answer.choices[0].message.content)
with client.chat.completions.create(model="lab-chat", messages=messages, stream=True) as pieces:
    deltas = [piece.choices[0].delta.content for piece in pieces if piece.choices]
say("chat stream", pieces=[delta for delta in deltas if delta])
say("embeddings", lengths=[len(one.embedding) for one in client.embeddings.create(model="embed-1", input=["a", "b"]).data])
picture = client.images.generate(model="image-1", prompt="a cat", response_format="b64_json")
say("image", bytes=len(picture.data[0].b64_json))
with open(speech, "rb") as file:
    say("transcription", text=client.audio.transcriptions.create(model="whisper-1", file=file).text)
with open(speech, "rb") as file:
    events = list(client.audio.transcriptions.create(model="whisper-1", file=file, stream=True))
say("transcription stream", kinds=sorted({event.type for event in events}), text=events[-1].text)
with client.audio.speech.with_streaming_response.create(
    model="tts-1", voice="alloy", input="on monday", response_format="wav"
) as spoken:
    say("speech", bytes=sum(len(part) for part in spoken.iter_bytes()), job=spoken.headers["x-relay-job-id"])
try:
    client.chat.completions.create(model="nope", messages=messages)
except APIStatusError as error:
    say("unknown model", status=error.status_code, code=error.code)
