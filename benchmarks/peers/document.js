'use strict'
// The document that a Node peer publishes: the properties of mailgw's own, but for the two
// hashes and the decisions, so that a peer has rather less to do than we have.

const { randomUUID } = require('node:crypto')

// Returns the bytes of one JSON document. `mime` is a Buffer; the rest is text.
exports.document = ({ sender, recipient, client, mime }) => {
    const transaction = randomUUID()
    const now = new Date().toISOString()
    return Buffer.from(
        JSON.stringify({
            'message-id': `${transaction}1`,
            'transaction-id': transaction,
            received: `${now.slice(0, 10)} ${now.slice(11, 19)}`,
            hostname: 'peer.example',
            envelope: sender,
            recipient,
            connection: {
                'local-ip': client.localAddress,
                'local-port': client.localPort,
                'remote-ip': client.remoteAddress,
                'remote-port': client.remotePort,
                secure: client.secure,
                helo: client.helo,
            },
            'mime-size': mime.length,
            mime: mime.toString('utf8'),
        }),
    )
}
