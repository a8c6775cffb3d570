//! Keys and tokens made by PyJWT 2 with the cryptography package; the private keys were deleted.

/// RSA of 2048 bits, P-256, P-384 and Ed25519.
pub(super) const KEYS: &str = r#"{"keys": [{"kty": "RSA", "n": "x9pzI4QiOiElPmJxCzXVcUfsMLZWyvxwvgDGq1aRAO1gExKYubW14nzdapepnh_XCcZhb2p-YA_NeVCLuWm2qoltAIhd7JcyKEh4FDEL00zpZP7_tiy0EyAlClbc-hx-gzzSa8VkgsYU86eumoIj25wl1bhEJw62HrsKseuezXU5Lxgf6J589_B6rGHkMoeK-HTV9ujGnPRyXZ71zv6aMybYK73Wtxu7B1krSPNBx_xnog2ZVL2s0bB1AeeLln-0gW2G3vIS8QCrPkg7J0v0ClFAlaaiUg7k9h-pV2B2UgeOor7s5Y0S9lL5X8PFjJnHRLutnWA3Fw-gWBPD_vyvFQ", "e": "AQAB", "kid": "rsa"}, {"kty": "EC", "crv": "P-256", "x": "E6skMXI9g50nKUnPGOB7G1C1Zh5XbHo0rYNFKeAJDMo", "y": "6reYtvIwWd0-jgjmUmKNauTkQ33NJXFs3JPidbMW1JQ", "kid": "p256"}, {"kty": "EC", "crv": "P-384", "x": "F6VHxyHS9QX7xzEd0AWky8o5sLLAFL1pMFYIXYHLfOrAwafYBekTcpKAdttzx9nz", "y": "NEEXGMcXaM02YeWdB6fxi-nK6BTLEoievOKAyJXM96CnQFgZ8Ry1X3sXVThqqssi", "kid": "p384"}, {"x": "mia_qDtuzgA8qbUGJltSkdODpnF37Buec84Pk9ilPtc", "kty": "OKP", "crv": "Ed25519", "kid": "ed"}]}"#;
/// An RSA key of 1024 bits.
pub(super) const SMALL: &str = r#"{"keys": [{"kty": "RSA", "key_ops": ["verify"], "n": "xrT8aR1a8YvU-nrNWJrDEnF5u84OF7XQioGBXVtY-zf3hJ1Z-PNr-gQuFQIrH8yNI2MhpZcK56XgHY7nk6Vp6XHu40L6jIrBEks87JpUUlIvgs-OPhR9UZAVVHV4MV_vIvlAVR6SXiNBW_bjCSQK0vwEYPPJFVatrkTBSiT1Kj8", "e": "AQAB"}]}"#;
/// Tokens for alice@example.org, valid from 1000000000 to 1000003600, by their algorithm.
pub(super) const TOKENS: &[(&str, &str)] = &[
    (
        "RS256",
        "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUub3JnIiwiYXVkIjpbIm1haWwiLCJ3ZWIiXSwic3ViIjoiMSIsImVtYWlsIjoiYWxpY2VAZXhhbXBsZS5vcmciLCJlbWFpbF92ZXJpZmllZCI6dHJ1ZSwiaWF0IjoxMDAwMDAwMDAwLCJuYmYiOjEwMDAwMDAwMDAsImV4cCI6MTAwMDAwMzYwMH0.ueECd0JQilcDwNdtL8eB_LVbJR9GraowRwTiiEDwBXGPwR4OmUSzGdg4oaLPFGDiczzhxXeCavfidOl3MTJ14zrA_l8f-eQ9pXYnGbRIVe4Es_sWl0G7yNa4l4HlMOXt_tPC9Vd0TmYagfRy5lrYlBPua1qoyluW7DI84VWhfPylbqXRWWuLfAM7fysHwAW_-NIyXN_zc_hHFS4o8DGEeF2gtwXbYk9du2Nh2N6qbXvb0n4bBhco_v-Q1sRTxu4FaiJRw0rDtm0YQr449JcWbXNp7BdzLGvTjG6Fr9Xk4mzrCXdVewbgdmbLXJ9-kVZ8K3WzacKwiu2IXskmqAlg_Q",
    ),
    (
        "PS256",
        "eyJhbGciOiJQUzI1NiIsImtpZCI6InJzYSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUub3JnIiwiYXVkIjpbIm1haWwiLCJ3ZWIiXSwic3ViIjoiMSIsImVtYWlsIjoiYWxpY2VAZXhhbXBsZS5vcmciLCJlbWFpbF92ZXJpZmllZCI6dHJ1ZSwiaWF0IjoxMDAwMDAwMDAwLCJuYmYiOjEwMDAwMDAwMDAsImV4cCI6MTAwMDAwMzYwMH0.WsU5mrDRflODKzUF44HPb29QZfSC9Cs73kCyh1cxHps1pnjHFOCuq0_fmcTb56KnFOa1GZTB_92eZSJLXRKImxCunerZjtZU50tv7SG4ukh9wdlY7X1gpONqT_ojxN2DdxHGi6axQfu5UMYBnKcAhiIo4wSXXQBKr4ubbfWmFQ7icm4D1Af-7ZA4VR3Ef5Gbo3G6C41d1kZstECOItJT7DGT0DUPN2c84tvGroHhyqx_RIl_VZ51TRRZ8rPZ8NZoNGzcmgzCQnnj1Pi6MZA_Sr2yTXoiRWGpAvizOuamWLoNGmY7DIhaS28ZM-LAFY0i-5cTpvWrYMES2KrhvwVIAA",
    ),
    (
        "ES256",
        "eyJhbGciOiJFUzI1NiIsImtpZCI6InAyNTYiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUub3JnIiwiYXVkIjpbIm1haWwiLCJ3ZWIiXSwic3ViIjoiMSIsImVtYWlsIjoiYWxpY2VAZXhhbXBsZS5vcmciLCJlbWFpbF92ZXJpZmllZCI6dHJ1ZSwiaWF0IjoxMDAwMDAwMDAwLCJuYmYiOjEwMDAwMDAwMDAsImV4cCI6MTAwMDAwMzYwMH0.XUm4XtOhCtjSTKpOkRuAQjk_CsIcegNxxawYuwcRqmkVjaw1q2zN5GY7qpbcFzp0lHHFn9L_i1lyvhma_H_K3A",
    ),
    (
        "ES384",
        "eyJhbGciOiJFUzM4NCIsImtpZCI6InAzODQiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUub3JnIiwiYXVkIjpbIm1haWwiLCJ3ZWIiXSwic3ViIjoiMSIsImVtYWlsIjoiYWxpY2VAZXhhbXBsZS5vcmciLCJlbWFpbF92ZXJpZmllZCI6dHJ1ZSwiaWF0IjoxMDAwMDAwMDAwLCJuYmYiOjEwMDAwMDAwMDAsImV4cCI6MTAwMDAwMzYwMH0.L137TIlhCt1mNWp5HtVHRbt1M3eOz8Km4ao9WPnIHxd0vFTpcldckpVZwlSG5bLeyI361OE3BIBjiA2dyiY40cTZUEGeeBcIyuc6A7Ycmvlpss2zJU-kgxXRnWMBmhJj",
    ),
    (
        "EdDSA",
        "eyJhbGciOiJFZERTQSIsImtpZCI6ImVkIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUub3JnIiwiYXVkIjpbIm1haWwiLCJ3ZWIiXSwic3ViIjoiMSIsImVtYWlsIjoiYWxpY2VAZXhhbXBsZS5vcmciLCJlbWFpbF92ZXJpZmllZCI6dHJ1ZSwiaWF0IjoxMDAwMDAwMDAwLCJuYmYiOjEwMDAwMDAwMDAsImV4cCI6MTAwMDAwMzYwMH0.0A5UdT2qdJX7u6_QTHyBcLF-5C_p4exkn_6JAAojW7xsTOLj7NM1ruSNnYiOX8GJhYTGVWPQUyOYFwK7nQzsCA",
    ),
];
/// Algorithms without a key.
pub(super) const FOREIGN: &[&str] = &[
    // RS512
    "eyJhbGciOiJSUzUxMiIsImtpZCI6InJzYSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUub3JnIiwiYXVkIjpbIm1haWwiLCJ3ZWIiXSwic3ViIjoiMSIsImVtYWlsIjoiYWxpY2VAZXhhbXBsZS5vcmciLCJlbWFpbF92ZXJpZmllZCI6dHJ1ZSwiaWF0IjoxMDAwMDAwMDAwLCJuYmYiOjEwMDAwMDAwMDAsImV4cCI6MTAwMDAwMzYwMH0.fBKrzeF0WxhUlRdqRwZWC1mvJQmh9nMRU9l7HIFnSx8wPQupUUPMEpTxtQ7cCLySiX8puN3nh5LV5xuLYSwZBCL0gh8Ql2Uq_5oknh1OJyfRSjubkbTQnoxx7EmtMa6Vv0MKW3-wjDQC0Uj-sslOHiNNHASLLxB9u8IiFKTMPvA-bfPUatfHzjK8HPK_VD2-0Aj9BRUkd8ytptLWvDMSpyxJlYZOtGngGfjAZ5WkLaquGE2OkJBsuvVjR0_JKCW3sUIa0aj3NDTbK9kFRuqWCCGGDD_PhKl0UDjB3MNVWYbvNSItfd4pc2x0k8PWSYs13su8oj3O8e3Mz_Iv8biD6g",
    // HS256 with the public key
    "eyJhbGciOiJIUzI1NiIsImtpZCI6InJzYSJ9.eyJpc3MiOiAiaHR0cHM6Ly9pZC5leGFtcGxlLm9yZyIsICJhdWQiOiBbIm1haWwiLCAid2ViIl0sICJzdWIiOiAiMSIsICJlbWFpbCI6ICJhbGljZUBleGFtcGxlLm9yZyIsICJlbWFpbF92ZXJpZmllZCI6IHRydWUsICJpYXQiOiAxMDAwMDAwMDAwLCAibmJmIjogMTAwMDAwMDAwMCwgImV4cCI6IDEwMDAwMDM2MDB9.UFLW8UNo-rqfY-52vS7tL4PK9J5T6DtvYFk3dnHWKQU",
];
