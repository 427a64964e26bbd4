"""Follows orders' events over HTTP: GATEWAY=… CLIENT_ID=… CLIENT_SECRET=… python feed.py   (pip install httpx)"""

import os
import time
from pathlib import Path

import httpx

RESUME, token = Path(os.environ.get("RESUME", "feed.resume")), "none yet"
http = httpx.Client(base_url=os.environ["GATEWAY"], timeout=60)
while True:
    after = {"after": RESUME.read_text()} if RESUME.exists() else {}
    try:
        answer = http.get("/events", params={**after, "wait": 30}, headers={"Authorization": f"Bearer {token}"})
        if answer.status_code == 401:
            client = (os.environ["CLIENT_ID"], os.environ["CLIENT_SECRET"])
            token = http.post("/token", data={"grant_type": "client_credentials"}, auth=client).json()["access_token"]
            continue
        for event in answer.raise_for_status().json():
            print(event["type"], event["subject"], event["aggregateversion"], flush=True)  # your work
            RESUME.with_suffix(".new").write_text(event["id"])  # after it: a crash in between repeats the event
            RESUME.with_suffix(".new").replace(RESUME)
    except (httpx.HTTPError, KeyError) as error:  # 410: no longer kept; delete the file to start again
        print("will retry:", repr(error), flush=True)
        time.sleep(1)
