// The main job over WebSocket: by the official client, by plain `/ws`, and by one of each.

import { suite } from "./cast.mjs";
import { TRANSPORTS } from "./client.mjs";
import { mainJob } from "./mainjob.mjs";
import { Server } from "./server.mjs";

suite("main job", await Server.start(), mainJob({ each: TRANSPORTS, inTurns: ["mixed"], official: ["socket.io"] }));
